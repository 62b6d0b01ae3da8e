{{/* The pod of a component: {root, component}. */}}

{{/*
How long a pod may take to end: preStop; ten seconds for each server to finish its requests; a dispatcher's
drain, five seconds for what is not acknowledged and for the last commit, and some to spare.
*/}}
{{- define "ringback.grace" -}}
{{- $values := index .root.Values .component -}}
{{- if $values.terminationGracePeriodSeconds -}}
{{- int64 $values.terminationGracePeriodSeconds -}}
{{- else -}}
{{- $own := 30 -}}
{{- if eq .component "dispatcher" -}}
{{- $drain := dig "dispatcher" "drain" "20s" .root.Values.config -}}
{{- $own = add 30 (include "ringback.seconds" $drain | int64) -}}
{{- end -}}
{{- add (int64 $values.preStopSeconds) $own -}}
{{- end -}}
{{- end -}}

{{/*
How many pods a workload has, or "autoscaler" if its manifest leaves that to an autoscaler: {root, component}.

Left out is best: neither an upgrade nor a rollback touches then what the autoscaler has chosen. But Helm
takes a field out of the live object that was in the last manifest and is not in the next, and without it
Kubernetes says 1. So it is left out from the installation on or not at all: who switches autoscaling on
later, or did so with a chart that does not leave the mark, keeps in each upgrade the number that is there.
*/}}
{{- define "ringback.scaling" -}}
{{- $values := index .root.Values .component -}}
{{- $static := eq (default "dynamic" $values.membership) "static" -}}
{{- $scaled := or (dig "autoscaling" "enabled" false $values) (dig "keda" "enabled" false $values) -}}
{{- $count := ternary $values.replicas 1 (hasKey $values "replicas") | int -}}
{{- if $scaled -}}
{{- $count = "autoscaler" -}}
{{- with lookup "apps/v1" (ternary "StatefulSet" "Deployment" $static) .root.Release.Namespace (include "ringback.name" .) -}}
{{- if ne (dig "metadata" "annotations" "ringback/replicas" "" .) "autoscaler" -}}
{{- $count = int .spec.replicas -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $count -}}
{{- end -}}

{{- define "ringback.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "ringback.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{/*
What is mounted from Secrets, as a list of volumes: {root, component}. A pod without one of them would wait
for it without a word; `optional` has the program say which file is missing, and end. The canary would go on.
*/}}
{{- define "ringback.volumes" -}}
{{- $root := .root -}}
{{- $credentials := include "ringback.credentials" . | fromJson -}}
{{- $ca := $root.Values.kafka.ca -}}
{{- if ne .component "canary" }}
{{- if $ca.existingSecret }}
- name: kafka-ca
  secret:
    secretName: {{ $ca.existingSecret }}
    optional: true
    items: [{ key: {{ $ca.key }}, path: ca.crt }]
{{- else if $ca.existingConfigMap }}
- name: kafka-ca
  configMap:
    name: {{ $ca.existingConfigMap }}
    optional: true
    items: [{ key: {{ $ca.key }}, path: ca.crt }]
{{- end }}
{{- with $credentials.clientCertificate }}
{{- if .existingSecret }}
- name: kafka-client
  secret:
    secretName: {{ .existingSecret }}
    optional: true
    items: [{ key: {{ .certificateKey }}, path: tls.crt }, { key: {{ .keyKey }}, path: tls.key }]
{{- end }}
{{- end }}
{{- if eq $credentials.mechanism "oauthbearer" }}
- name: kafka-token
{{- if $credentials.token.existingSecret }}
  secret:
    secretName: {{ $credentials.token.existingSecret }}
    optional: true
    items: [{ key: {{ $credentials.token.key }}, path: token }]
{{- else }}
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ $credentials.token.audience | quote }}
          expirationSeconds: {{ int64 $credentials.token.expirationSeconds }}
{{- end }}
{{- else if $credentials.mechanism }}
- name: kafka-password
  secret:
    secretName: {{ $credentials.existingSecret }}
    optional: true
    items: [{ key: {{ $credentials.passwordKey }}, path: password }]
{{- end }}
{{- end }}
{{- if .whole }}
{{- if eq .component "admin" }}
{{- $token := $root.Values.secrets.operatorToken }}
- name: operator-token
  secret:
    secretName: {{ $token.existingSecret }}
    optional: true
    items: [{ key: {{ $token.key }}, path: operator-token }]
{{- with $root.Values.secrets.mailPassword }}
{{- if .existingSecret }}
- name: mail-password
  secret:
    secretName: {{ .existingSecret }}
    optional: true
    items: [{ key: {{ .key }}, path: password }]
{{- end }}
{{- end }}
{{- end }}
{{- if eq .component "canary" }}
{{- $token := ternary $root.Values.canary.token $root.Values.secrets.operatorToken (ne $root.Values.canary.token.existingSecret "") }}
- name: canary-token
  secret:
    secretName: {{ $token.existingSecret }}
    items: [{ key: {{ $token.key }}, path: token }]
{{- end }}
{{- $proxy := $root.Values.secrets.proxyPassword }}
{{- if and (eq .component "dispatcher") $proxy.existingSecret }}
- name: proxy-password
  secret:
    secretName: {{ $proxy.existingSecret }}
    optional: true
    items: [{ key: {{ $proxy.key }}, path: password }]
{{- end }}
{{- end }}
{{- end -}}

{{/* Each of those is mounted under its name. */}}
{{- define "ringback.mounts" -}}
{{- range include "ringback.volumes" . | fromYamlArray }}
- name: {{ .name }}
  mountPath: /etc/ringback/{{ .name }}
  readOnly: true
{{- end }}
{{- end -}}

{{- define "ringback.podSpec" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $values := index $root.Values $component -}}
{{- $port := get (dict "producer" 8080 "admin" 8081 "canary" 8091) $component -}}
{{- $arguments := dict "root" $root "component" $component "whole" true -}}
{{- $sqlite := and (eq $component "admin") (eq $root.Values.admin.projection.engine "sqlite") -}}
serviceAccountName: {{ include "ringback.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ include "ringback.grace" . }}
securityContext:
  {{- include "ringback.podSecurityContext" . | nindent 2 }}
containers:
  - name: {{ $component }}
    image: {{ include "ringback.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: [{{ $component }}]
    env:
      {{- include "ringback.env" . | trim | nindent 6 }}
      {{- with $values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $values.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      {{- if $port }}
      - { name: http, containerPort: {{ $port }} }
      {{- end }}
      - { name: telemetry, containerPort: 9464 }
    # Ready: the log answers, the configuration is read to its end, partitions may come. It listens once
    # the topics were found right; until then this waits for it.
    startupProbe:
      httpGet: { path: /healthz, port: telemetry }
      periodSeconds: 2
      failureThreshold: 60
    readinessProbe:
      httpGet: { path: /readyz, port: telemetry }
      periodSeconds: 5
      timeoutSeconds: 3
      failureThreshold: 2
    # Only whether the process still turns: a log that is away is no reason to restart.
    livenessProbe:
      httpGet: { path: /healthz, port: telemetry }
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    {{- if $values.preStopSeconds }}
    lifecycle:
      preStop:
        sleep: { seconds: {{ int64 $values.preStopSeconds }} }
    {{- end }}
    # It leaves there itself why it does not start; of a crash, `kubectl describe` shows the log's end.
    terminationMessagePolicy: FallbackToLogsOnError
    securityContext:
      {{- include "ringback.securityContext" . | nindent 6 }}
    resources:
      {{- $resources := $values.resources }}
      {{- if and $sqlite (not $root.Values.admin.projection.persistence.enabled) }}
      {{- /* So that it is put on a node with room for its volume, and stays there. */}}
      {{- $resources = merge (dict) $resources (dict "requests" (dict "ephemeral-storage" $root.Values.admin.projection.sizeLimit)) }}
      {{- end }}
      {{- toYaml $resources | nindent 6 }}
    {{- $mounts := include "ringback.mounts" $arguments | trim }}
    {{- if or $mounts $sqlite $values.extraVolumeMounts }}
    volumeMounts:
      {{- with $mounts }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- if $sqlite }}
      - { name: projection, mountPath: /var/lib/ringback/projection }
      {{- end }}
      {{- with $values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- end }}
{{- $volumes := include "ringback.volumes" $arguments | trim }}
{{- if or $volumes $sqlite $values.extraVolumes }}
volumes:
  {{- with $volumes }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if $sqlite }}
  {{- $kept := $root.Values.admin.projection.persistence }}
  - name: projection
    {{- if $kept.enabled }}
    persistentVolumeClaim:
      claimName: {{ default (printf "%s-projection" (include "ringback.fullname" $root)) $kept.existingClaim }}
    {{- else }}
    emptyDir: { sizeLimit: {{ $root.Values.admin.projection.sizeLimit }} }
    {{- end }}
  {{- end }}
  {{- with $values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
topologySpreadConstraints:
  {{- if $values.topologySpreadConstraints }}
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "ringback.selector" (dict "root" $root "component" $component) | nindent 8 }}
  {{- end }}
  {{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
