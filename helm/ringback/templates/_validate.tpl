{{/* What a schema cannot say: values that do not go together. All of it at once. */}}
{{- define "ringback.validate" -}}
{{- $wrong := list -}}
{{- $v := .Values -}}
{{- if not $v.kafka.bootstrap -}}
{{- $wrong = append $wrong "kafka.bootstrap: name the brokers, such as kafka-1:9092,kafka-2:9092" -}}
{{- end -}}
{{- if not $v.secrets.keys.existingSecret -}}
{{- $wrong = append $wrong "secrets.keys.existingSecret: name a Secret with the keys that seal webhooks' secrets; make one with: kubectl create secret generic ringback-keys --from-literal=k1=$(openssl rand -base64 32)" -}}
{{- end -}}
{{- if not (has $v.secrets.keys.primary $v.secrets.keys.ids) -}}
{{- $wrong = append $wrong (printf "secrets.keys.primary: %q is not one of secrets.keys.ids" $v.secrets.keys.primary) -}}
{{- end -}}
{{- if and $v.admin.enabled (not $v.secrets.operatorToken.existingSecret) -}}
{{- $wrong = append $wrong "secrets.operatorToken.existingSecret: name a Secret with the operators' token; make one with: kubectl create secret generic ringback-operator --from-literal=operator-token=$(openssl rand -hex 32)" -}}
{{- end -}}
{{- $tls := has $v.kafka.securityProtocol (list "ssl" "sasl_ssl") -}}
{{- $sasl := hasPrefix "sasl" $v.kafka.securityProtocol -}}
{{- $clients := without (include "ringback.components" . | fromJsonArray) "canary" -}}
{{- /* The topics job gets in with admin's, also when admin is elsewhere. */ -}}
{{- if .Values.topics.enabled }}{{ $clients = append $clients "admin" | uniq }}{{ end -}}
{{- range $component := $clients -}}
{{- $credentials := include "ringback.credentials" (dict "root" $ "component" $component) | fromJson -}}
{{- $where := printf "kafka.credentials (or %s.kafka)" $component -}}
{{- if and $sasl (not $credentials.mechanism) -}}
{{- $wrong = append $wrong (printf "%s.mechanism: kafka.securityProtocol is %s, so name one of plain, scram-sha-256, scram-sha-512, oauthbearer" $where $v.kafka.securityProtocol) -}}
{{- else if and $credentials.mechanism (not $sasl) -}}
{{- $wrong = append $wrong (printf "%s.mechanism: is for kafka.securityProtocol sasl_ssl or sasl_plaintext, not %s" $where $v.kafka.securityProtocol) -}}
{{- else if eq $credentials.mechanism "oauthbearer" -}}
{{- if not (or $credentials.token.existingSecret $credentials.token.audience) -}}
{{- $wrong = append $wrong (printf "%s.token: give the audience for the service account's token, or the existingSecret that holds one" $where) -}}
{{- end -}}
{{- else if and $sasl (not (and $credentials.username $credentials.existingSecret)) -}}
{{- $wrong = append $wrong (printf "%s: %s needs username and existingSecret" $where $credentials.mechanism) -}}
{{- end -}}
{{- if and $credentials.clientCertificate.existingSecret (not $tls) -}}
{{- $wrong = append $wrong (printf "%s.clientCertificate: is for kafka.securityProtocol ssl or sasl_ssl, not %s" $where $v.kafka.securityProtocol) -}}
{{- end -}}
{{- end -}}
{{- if and (or $v.kafka.ca.existingSecret $v.kafka.ca.existingConfigMap) (not $tls) -}}
{{- $wrong = append $wrong (printf "kafka.ca: is for kafka.securityProtocol ssl or sasl_ssl, not %s" $v.kafka.securityProtocol) -}}
{{- end -}}
{{- $d := $v.dispatcher -}}
{{- $partitions := dig "topics" "event_partitions" 12 $v.config | int -}}
{{- $most := dict "dispatcher.replicas" $d.replicas -}}
{{- if $d.autoscaling.enabled }}{{ $most = dict "dispatcher.autoscaling.maxReplicas" $d.autoscaling.maxReplicas }}{{ end -}}
{{- if $d.keda.enabled }}{{ $most = dict "dispatcher.keda.maxReplicas" $d.keda.maxReplicas }}{{ end -}}
{{- range $key, $count := $most -}}
{{- if gt (int $count) $partitions -}}
{{- $wrong = append $wrong (printf "%s: %d dispatchers share %d partitions, so some would have nothing to do; use at most %d, or more partitions (config.topics.event_partitions, which for existing topics is an operation on Kafka)" $key (int $count) $partitions $partitions) -}}
{{- end -}}
{{- end -}}
{{- if and $d.autoscaling.enabled $d.keda.enabled -}}
{{- $wrong = append $wrong "dispatcher.keda: makes an autoscaler of its own; use it or dispatcher.autoscaling, not both" -}}
{{- end -}}
{{- $credentials := include "ringback.credentials" (dict "root" . "component" "dispatcher") | fromJson -}}
{{- if and $d.keda.enabled (eq $credentials.mechanism "oauthbearer") (not $d.keda.prometheusAddress) -}}
{{- $wrong = append $wrong "dispatcher.keda.prometheusAddress: with oauthbearer KEDA cannot ask Kafka for the lag; name a Prometheus that has it" -}}
{{- end -}}
{{- range $key, $on := dict "producer" $v.producer.autoscaling.enabled "dispatcher" (or $d.autoscaling.enabled $d.keda.enabled) -}}
{{- if and $on (not (dig "requests" "cpu" "" (index $v $key).resources)) -}}
{{- $wrong = append $wrong (printf "%s.resources.requests.cpu: say how much; the autoscaler goes by the share of it that is used" $key) -}}
{{- end -}}
{{- end -}}
{{- range $key, $scaling := dict "producer.autoscaling" $v.producer.autoscaling "dispatcher.autoscaling" $d.autoscaling "dispatcher.keda" $d.keda -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- $wrong = append $wrong (printf "%s: minReplicas %d is more than maxReplicas %d" $key (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- $p := $v.admin.projection -}}
{{- if and (eq $p.engine "postgres") (not $p.url.existingSecret) -}}
{{- $wrong = append $wrong "admin.projection.url.existingSecret: name the Secret that holds postgresql://USER:PASSWORD@HOST/DATABASE" -}}
{{- end -}}
{{- if and $p.persistence.enabled (ne $p.engine "sqlite") -}}
{{- $wrong = append $wrong (printf "admin.projection.persistence: is for the engine sqlite, not %s" $p.engine) -}}
{{- end -}}
{{- if and $p.persistence.enabled (eq $p.engine "sqlite") (gt (int $v.admin.replicas) 1) -}}
{{- $wrong = append $wrong "admin.projection.persistence: its files are one process's; use one replica, or the engine postgres" -}}
{{- end -}}
{{- $c := $v.canary -}}
{{- if $c.enabled -}}
{{- if not $c.url -}}
{{- $wrong = append $wrong (printf "canary.url: say where dispatchers reach its receiver, best as they reach customers: https://HOST of canary.ingress or canary.httpRoute; or its Service, http://%s-canary.%s:%d, with the network of Services in config.dispatcher.allow_networks" (include "ringback.fullname" .) .Release.Namespace (int $c.service.port)) -}}
{{- end -}}
{{- if not (or $c.token.existingSecret $v.secrets.operatorToken.existingSecret) -}}
{{- $wrong = append $wrong "canary.token.existingSecret: name a Secret with the operators' token, or with one of the canary's tenant with the scope write" -}}
{{- end -}}
{{- if not (or $v.admin.enabled $c.adminUrl) -}}
{{- $wrong = append $wrong "canary.adminUrl: admin is not part of this release; say where it is" -}}
{{- end -}}
{{- if not (or $v.producer.enabled $c.ingestUrl) -}}
{{- $wrong = append $wrong "canary.ingestUrl: producer is not part of this release; say where it is" -}}
{{- end -}}
{{- end -}}
{{- range $component := list "producer" "admin" "canary" -}}
{{- $one := index $v $component -}}
{{- if and $one.ingress.enabled (not $one.ingress.hosts) -}}
{{- $wrong = append $wrong (printf "%s.ingress.hosts: name at least one host" $component) -}}
{{- end -}}
{{- if and $one.httpRoute.enabled (not $one.httpRoute.parentRefs) -}}
{{- $wrong = append $wrong (printf "%s.httpRoute.parentRefs: name the Gateway that it belongs to" $component) -}}
{{- end -}}
{{- end -}}
{{- if and $v.admin.enabled $v.admin.ingress.enabled $v.admin.ingress.tls (eq (dig "admin" "session" "secure" true $v.config) false) -}}
{{- $wrong = append $wrong "config.admin.session.secure: admin.ingress.tls is given, so the session's cookie is for TLS alone; leave it out" -}}
{{- end -}}
{{- $labels := dict "commonLabels" $v.commonLabels -}}
{{- range $component := list "producer" "dispatcher" "metrics" "admin" "canary" -}}
{{- $_ := set $labels (printf "%s.podLabels" $component) (index $v $component).podLabels -}}
{{- $_ := set $labels (printf "%s.service.labels" $component) (dig "service" "labels" dict (index $v $component)) -}}
{{- end -}}
{{- range $name, $one := $v.monitoring -}}
{{- $_ := set $labels (printf "monitoring.%s.labels" $name) $one.labels -}}
{{- end -}}
{{- range $where, $given := $labels -}}
{{- range $key := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- if hasKey (default dict $given) $key -}}
{{- $wrong = append $wrong (printf "%s: %s is what pods are found by, and stays as the chart says it; take another label" $where $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.monitoring.podMonitor.enabled $v.monitoring.serviceMonitor.enabled -}}
{{- $wrong = append $wrong "monitoring: use podMonitor or serviceMonitor; with both everything is scraped and counted twice" -}}
{{- end -}}
{{- if $wrong -}}
{{- fail (printf "\n\nThese values do not work:\n  %s\n" (join "\n  " $wrong)) -}}
{{- end -}}
{{- end -}}
