{{/* What no schema can say: relations between values. */}}

{{/* Secrets of the configuration that stand in the values themselves, as dotted keys. The names are those of the program. */}}
{{- define "smsfleet.plainSecrets" -}}
{{- $path := .path -}}
{{- range $key, $value := .table -}}
{{- if has $key (list "true" "false") -}}
{{- fail (printf "%s: a key such as on, yes or off has to stand in quotes, or YAML takes it for true or false" (join "." (append $path $key))) -}}
{{- end -}}
{{- if kindIs "map" $value -}}
{{ include "smsfleet.plainSecrets" (dict "path" (append $path $key) "table" $value) }}
{{- else if and $value (has $key (list "password" "token" "receipt_token" "secret" "sas" "key_password" "sentinel_password")) -}}
{{ join "." (append $path $key) }}{{ " " }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "smsfleet.guards" -}}
{{- $values := .Values -}}
{{- with include "smsfleet.plainSecrets" (dict "path" (list "config") "table" $values.config) | trim -}}
{{- fail (printf "%s: a secret stands in the values; name a Secret in `secrets` instead" .) -}}
{{- end -}}
{{- if and (hasPrefix "sasl" $values.kafka.security) (or (not $values.kafka.username) (not $values.kafka.password)) -}}
{{- fail (printf "kafka.security is %s: kafka.username and kafka.password are needed" $values.kafka.security) -}}
{{- end -}}
{{- if and (not (hasSuffix "ssl" $values.kafka.security)) (or $values.kafka.ca $values.kafka.clientCertificate) -}}
{{- fail (printf "kafka.ca and kafka.clientCertificate are for ssl and sasl_ssl, and kafka.security is %s" $values.kafka.security) -}}
{{- end -}}
{{- range list "scylla" "redis" -}}
{{- $server := index $values . -}}
{{- if and (not $server.tls.enabled) (or $server.tls.ca $server.tls.clientCertificate) -}}
{{- fail (printf "%s.tls names files, and %s.tls.enabled is false" . .) -}}
{{- end -}}
{{- end -}}
{{- range list "prepare" "deliver" "gateway" -}}
{{- $scaling := (index $values .).autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas is above maxReplicas" .) -}}
{{- end -}}
{{- if and (eq $scaling.kind "hpa") (lt (int $scaling.minReplicas) 1) -}}
{{- fail (printf "%s.autoscaling.minReplicas is 0: only KEDA scales to zero" .) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $values.prepare.autoscaling.maxReplicas) (int $values.kafka.preparePartitions) -}}
{{- fail (printf "prepare.autoscaling.maxReplicas is above the %d partitions of kafka.preparePartitions: the others would be idle" (int $values.kafka.preparePartitions)) -}}
{{- end -}}
{{- if and $values.monitoring.podMonitor.enabled $values.monitoring.serviceMonitor.enabled -}}
{{- fail "monitoring.podMonitor and monitoring.serviceMonitor are both enabled: every pod would be read twice" -}}
{{- end -}}
{{- if and $values.externalSecrets.secrets (not $values.externalSecrets.store.name) -}}
{{- fail "externalSecrets.store.name is needed: the store that the secrets come from" -}}
{{- end -}}
{{- end -}}
