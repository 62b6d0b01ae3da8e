{{/*
Configuration as variables in the pod's template: a pod of the release before keeps its own when it is
restarted in the middle of an upgrade, and a rollback brings back what was.
*/}}

{{/* A value as TOML writes it. */}}
{{- define "ringback.toml" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
{{- $pairs = append $pairs (printf "%s = %s" (toJson $key) (include "ringback.toml" $value)) -}}
{{- end -}}
{ {{ join ", " $pairs }} }
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}{{- $items = append $items (include "ringback.toml" .) -}}{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "float64" . -}}
{{- if eq (float64 (int64 .)) . -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* One variable: {key, value}. Text goes as it is unless it could be taken for something else. */}}
{{- define "ringback.variable" -}}
{{- $text := "" -}}
{{- if and (kindIs "string" .value) (not (regexMatch "^\\s*[\"'\\[{]" .value)) -}}
{{- $text = .value -}}
{{- else -}}
{{- $text = include "ringback.toml" .value -}}
{{- end -}}
- name: RINGBACK_{{ .key | upper | replace "." "__" | replace "-" "_" }}
  {{- /* Kubernetes would put other variables in for $(…). */}}
  value: {{ $text | replace "$(" "$$(" | quote }}
{{- end -}}

{{/* Every key of a map that is not a map itself: {path, map}. */}}
{{- define "ringback.variables" -}}
{{- $path := .path -}}
{{- range $key, $value := .map }}
{{- $name := $key -}}
{{- if $path }}{{ $name = printf "%s.%s" $path $key }}{{ end -}}
{{- if and (kindIs "map" $value) $value }}
{{- include "ringback.variables" (dict "path" $name "map" $value) }}
{{- else if not (kindIs "invalid" $value) }}
{{ include "ringback.variable" (dict "key" $name "value" $value) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* How a component gets into Kafka, as JSON: the common credentials with its own over them. */}}
{{- define "ringback.credentials" -}}
{{- $component := ternary "admin" .component (eq .component "topics") -}}
{{- $own := (index .root.Values $component).kafka | default dict -}}
{{- mergeOverwrite (deepCopy .root.Values.kafka.credentials) (deepCopy $own) | toJson -}}
{{- end -}}

{{- define "ringback.env" -}}
{{- $root := .root -}}
{{- $kafka := $root.Values.kafka -}}
{{- $credentials := include "ringback.credentials" . | fromJson -}}
{{- $keys := $root.Values.secrets.keys -}}
{{- $set := dict "telemetry.listen" "0.0.0.0:9464" -}}
{{- if eq .component "canary" -}}
{{- $canary := $root.Values.canary -}}
{{- $service := printf "http://%s-%%s.%s:%%d" (include "ringback.fullname" $root) $root.Release.Namespace -}}
{{- $_ := set $set "canary.listen" "0.0.0.0:8091" -}}
{{- $_ := set $set "canary.url" $canary.url -}}
{{- $_ := set $set "canary.admin_url" (default (printf $service "admin" (int $root.Values.admin.service.port)) $canary.adminUrl) -}}
{{- $_ := set $set "canary.ingest_url" (default (printf $service "producer" (int $root.Values.producer.service.port)) $canary.ingestUrl) -}}
{{- $_ := set $set "canary.token_file" "/etc/ringback/canary-token/token" -}}
{{- else -}}
{{- $set = merge $set (dict
  "log.engine" "kafka"
  "log.kafka.bootstrap" $kafka.bootstrap
  "log.kafka.security_protocol" $kafka.securityProtocol
  "log.kafka.group_prefix" $kafka.groupPrefix
  "log.kafka.client_id" (include "ringback.name" .)
  "secrets.primary" $keys.primary
) -}}
{{- if or $kafka.ca.existingSecret $kafka.ca.existingConfigMap -}}
{{- $_ := set $set "log.kafka.tls.ca" "/etc/ringback/kafka-ca/ca.crt" -}}
{{- end -}}
{{- if $credentials.clientCertificate.existingSecret -}}
{{- $_ := set $set "log.kafka.tls.certificate" "/etc/ringback/kafka-client/tls.crt" -}}
{{- $_ := set $set "log.kafka.tls.key" "/etc/ringback/kafka-client/tls.key" -}}
{{- end -}}
{{- with $credentials.mechanism -}}
{{- $_ := set $set "log.kafka.sasl.mechanism" . -}}
{{- if eq . "oauthbearer" -}}
{{- $_ := set $set "log.kafka.sasl.token_file" "/etc/ringback/kafka-token/token" -}}
{{- else -}}
{{- $_ := set $set "log.kafka.sasl.username" $credentials.username -}}
{{- $_ := set $set "log.kafka.sasl.password_file" "/etc/ringback/kafka-password/password" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq .component "producer" -}}
{{- $_ := set $set "ingest.listen" "0.0.0.0:8080" -}}
{{- else if eq .component "dispatcher" -}}
{{- if $root.Values.secrets.proxyPassword.existingSecret -}}
{{- $_ := set $set "dispatcher.proxy_password_file" "/etc/ringback/proxy-password/password" -}}
{{- end -}}
{{- else if eq .component "admin" -}}
{{- $_ := set $set "admin.listen" "0.0.0.0:8081" -}}
{{- $_ := set $set "admin.operator_token_file" "/etc/ringback/operator-token/operator-token" -}}
{{- if $root.Values.secrets.mailPassword.existingSecret -}}
{{- $_ := set $set "admin.mail.password_file" "/etc/ringback/mail-password/password" -}}
{{- end -}}
{{- $ingress := $root.Values.admin.ingress -}}
{{- if and $ingress.enabled $ingress.tls -}}
{{- if not (dig "admin" "session" "secure" false $root.Values.config) -}}
{{- $_ := set $set "admin.session.secure" true -}}
{{- end -}}
{{- if not (dig "admin" "public_url" "" $root.Values.config) -}}
{{- $_ := set $set "admin.public_url" (include "ringback.publicUrl" $root) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $set "admin.projection.engine" $root.Values.admin.projection.engine -}}
{{- if eq $root.Values.admin.projection.engine "sqlite" -}}
{{- $_ := set $set "admin.projection.dir" "/var/lib/ringback/projection" -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := $set }}
{{ include "ringback.variable" (dict "key" $key "value" $value) }}
{{- end }}
{{- if ne .component "canary" }}
{{- range $name, $value := $kafka.properties }}
{{ include "ringback.variable" (dict "key" (printf "log.kafka.properties.%s" ($name | replace "." "_")) "value" (toString $value)) }}
{{- end }}
{{- range $id := $keys.ids }}
{{- /* Without the primary key it does not start. Without another it would, and not open what that sealed:
so it is given the name of the variable then, which is no key. */}}
{{- $other := ne $id $keys.primary }}
- name: {{ ternary "KEY_" "RINGBACK_SECRETS__KEYS__" $other }}{{ $id | upper }}
  valueFrom:
    secretKeyRef: { name: {{ $keys.existingSecret }}, key: {{ $id }}, optional: true }
{{- if $other }}
- name: RINGBACK_SECRETS__KEYS__{{ $id | upper }}
  value: $(KEY_{{ $id | upper }})
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq .component "admin") (eq $root.Values.admin.projection.engine "postgres") }}
{{- $url := $root.Values.admin.projection.url }}
- name: RINGBACK_ADMIN__PROJECTION__URL
  valueFrom:
    secretKeyRef: { name: {{ $url.existingSecret }}, key: {{ $url.key }}, optional: true }
{{- end }}
{{- if eq .component "dispatcher" }}
- name: POD_NAME
  valueFrom:
    fieldRef: { fieldPath: metadata.name }
- name: RINGBACK_DISPATCHER__NAME
  value: $(POD_NAME)
{{- if eq $root.Values.dispatcher.membership "static" }}
- name: RINGBACK_LOG__KAFKA__PROPERTIES__GROUP_INSTANCE_ID
  value: $(POD_NAME)
{{- end }}
{{- end }}
{{- $config := mergeOverwrite (dict "telemetry" (dict "format" "json")) (deepCopy $root.Values.config) }}
{{- if ne .component "admin" }}
{{- $_ := unset $config "admin" }}
{{- end }}
{{- if and $config.ingest (ne .component "producer") }}
{{- /* Its files are mounted there alone. */}}
{{- $_ := unset $config.ingest "tls" }}
{{- end }}
{{- if and $config.dispatcher (ne .component "dispatcher") }}
{{- /* It goes with the password, which only dispatchers get. */}}
{{- $_ := unset $config.dispatcher "proxy_username" }}
{{- end }}
{{- if eq .component "canary" }}
{{- $config = pick $config "canary" "telemetry" }}
{{- else }}
{{- $_ := unset $config "canary" }}
{{- end }}
{{- include "ringback.variables" (dict "path" "" "map" $config) }}
{{- end -}}

{{/* A duration of the configuration ("20s", "2m") in whole seconds, rounded up. */}}
{{- define "ringback.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{ div (add $number 999) 1000 }}
{{- else -}}{{ mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) }}{{- end -}}
{{- end -}}

{{- /* Where people find the administration; empty: not known. */}}
{{- define "ringback.publicUrl" -}}
{{- $ingress := .Values.admin.ingress -}}
{{- $ours := "" -}}
{{- if and $ingress.enabled $ingress.tls -}}
{{- $ours = printf "https://%s" (first $ingress.hosts) -}}
{{- end -}}
{{- dig "admin" "public_url" "" .Values.config | default $ours | trimSuffix "/" -}}
{{- end -}}
