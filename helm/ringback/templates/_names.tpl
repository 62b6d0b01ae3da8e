{{/* Names and labels. */}}

{{- define "ringback.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Of one component: {root, component}. */}}
{{- define "ringback.name" -}}
{{- printf "%s-%s" (include "ringback.fullname" .root) .component -}}
{{- end -}}

{{- define "ringback.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Those of an object, each once: {root, component, labels?}. */}}
{{- define "ringback.labels" -}}
{{- $usual := dict
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/part-of" "ringback"
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_")
-}}
{{- merge (include "ringback.selector" . | fromYaml) (default dict .labels) .root.Values.commonLabels $usual | toYaml -}}
{{- end -}}

{{/* The metadata every object has: {root, component, name?, labels?, annotations?}. */}}
{{- define "ringback.metadata" -}}
name: {{ default (include "ringback.name" .) .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "ringback.labels" . | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "ringback.serviceAccount" -}}
{{- if .root.Values.serviceAccount.create -}}
{{- include "ringback.name" . -}}
{{- else -}}
{{- default "default" .root.Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "ringback.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The components that are on, as JSON. */}}
{{- define "ringback.components" -}}
{{- $on := list -}}
{{- range list "producer" "dispatcher" "metrics" "admin" "canary" -}}
{{- if (index $.Values .).enabled }}{{ $on = append $on . }}{{ end -}}
{{- end -}}
{{- $on | toJson -}}
{{- end -}}
