{{/* Which ports the fleet talks to, from its configuration. */}}

{{/* The port of an address such as host:port or [::1]:port. */}}
{{- define "smsfleet.portOf" -}}
{{ regexFind "[0-9]+$" . }}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "smsfleet.portOfUrl" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{ $port | default (ternary "80" "443" (eq $url.scheme "http")) }}
{{- end -}}

{{/* Ports of Kafka, ScyllaDB and Redis, as a JSON list. Sentinels name the server they watch, usually at 6379. */}}
{{- define "smsfleet.ports.servers" -}}
{{- $ports := list -}}
{{- range concat .Values.kafka.brokers .Values.scylla.nodes .Values.redis.nodes -}}
{{- $ports = append $ports (include "smsfleet.portOf" . | int) -}}
{{- end -}}
{{- if eq .Values.redis.mode "sentinel" }}{{ $ports = append $ports 6379 }}{{ end -}}
{{ $ports | uniq | toJson }}
{{- end -}}

{{/* Ports of providers. */}}
{{- define "smsfleet.ports.providers" -}}
{{- $ports := list -}}
{{- $config := include "smsfleet.config" . | fromJson -}}
{{- range $name, $account := $config.accounts | default dict -}}
{{- if ne $name "simulator" -}}
{{- if eq ($account.protocol | default "smpp") "http" -}}
{{- $ports = append $ports (include "smsfleet.portOfUrl" (($account.http | default dict).url | default "https://") | int) -}}
{{- else -}}
{{- $ports = append $ports (int (($account.smpp | default dict).port | default 2775)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ $ports | uniq | toJson }}
{{- end -}}

{{/* Ports of whatever else is named by URL: object stores, tables, collectors of traces; and 443 for webhooks and buckets. */}}
{{- define "smsfleet.ports.others" -}}
{{- $ports := list 443 -}}
{{- $config := include "smsfleet.config" . | fromJson -}}
{{- range $table := list "object_stores" "azure_tables" -}}
{{- range $name, $store := index $config $table | default dict -}}
{{- with $store.endpoint }}{{ $ports = append $ports (include "smsfleet.portOfUrl" . | int) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- with ($config.trace | default dict).endpoint }}{{ $ports = append $ports (include "smsfleet.portOfUrl" . | int) }}{{ end -}}
{{- if ($config.webhooks | default dict).allow_http }}{{ $ports = append $ports 80 }}{{ end -}}
{{ $ports | uniq | toJson }}
{{- end -}}
