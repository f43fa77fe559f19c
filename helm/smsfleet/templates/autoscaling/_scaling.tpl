{{/* How many deliverers can have sessions at most: where every account has bind slots, their sum; else 0, for no limit. */}}
{{- define "smsfleet.slots" -}}
{{- $config := include "smsfleet.config" . | fromJson -}}
{{- $sum := 0 -}}
{{- $all := true -}}
{{- range $name, $account := $config.accounts | default dict -}}
{{- if $account.bind_slots }}{{ $sum = add $sum (int $account.bind_slots) }}{{ else }}{{ $all = false }}{{ end -}}
{{- end -}}
{{ ternary $sum 0 $all }}
{{- end -}}

{{/* The most pods of a scaled role. */}}
{{- define "smsfleet.maxReplicas" -}}
{{- $most := int .scaling.maxReplicas -}}
{{- $slots := include "smsfleet.slots" .root | int -}}
{{- if and (eq .role "deliver") (gt $slots 0) }}{{ $most = min $most $slots }}{{ end -}}
{{- max $most (int .scaling.minReplicas) 1 -}}
{{- end -}}

{{/* Whether KEDA has to prove who it is to Kafka, or needs authorities of one's own; empty if not. */}}
{{- define "smsfleet.needsAuthentication" -}}
{{- $kafka := .Values.kafka -}}
{{- if or (hasPrefix "sasl" $kafka.security) $kafka.ca $kafka.clientCertificate }}yes{{ end -}}
{{- end -}}

{{/* KEDA's look at the lag of a role's topic. */}}
{{- define "smsfleet.lagTrigger" -}}
type: kafka
name: lag
metricType: AverageValue
{{- if gt (int .scaling.minReplicas) 0 }}
# The autoscaler asks every 15 seconds whatever `pollingInterval` says; the answer of the last look is enough.
useCachedMetrics: true
{{- end }}
metadata:
  bootstrapServers: {{ join "," .root.Values.kafka.brokers | quote }}
  # Groups are named like the topic they read.
  consumerGroup: {{ printf "%s.%s" .root.Values.kafka.topicPrefix .topic | quote }}
  topic: {{ printf "%s.%s" .root.Values.kafka.topicPrefix .topic | quote }}
  lagThreshold: {{ .scaling.tokensPerWorker | quote }}
  activationLagThreshold: "0"
  # As the program reads: from the beginning where nothing was committed.
  offsetResetPolicy: earliest
  # One stuck partition is work for one pod, however much waits in it.
  limitToPartitionsWithLag: "true"
  version: "2.8.0"
  {{- if hasSuffix "ssl" .root.Values.kafka.security }}
  tls: enable
  {{- end }}
  {{- if hasPrefix "sasl" .root.Values.kafka.security }}
  sasl: {{ get (dict "PLAIN" "plaintext" "SCRAM-SHA-256" "scram_sha256" "SCRAM-SHA-512" "scram_sha512") .root.Values.kafka.mechanism }}
  {{- end }}
{{- if include "smsfleet.needsAuthentication" .root }}
authenticationRef: {name: {{ include "smsfleet.fullname" .root }}-kafka}
{{- end }}
{{- end -}}
