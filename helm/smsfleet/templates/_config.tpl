{{/* The configuration: what `config` says, the three servers, and where secrets and files are mounted. */}}

{{/* Where things are in a pod. Names of secrets and config maps cannot meet: they lie in folders of their own. */}}
{{- define "smsfleet.path" -}}
{{- if .secret -}}
/etc/smsfleet/secrets/{{ .secret }}/{{ .key }}
{{- else -}}
/etc/smsfleet/files/{{ .configMap }}/{{ .key }}
{{- end -}}
{{- end -}}

{{/* Sets `place` (a dotted key) of `table` to `value`, which nothing else may have set. Account names have no dots. */}}
{{- define "smsfleet.set" -}}
{{- $parts := splitList "." .place -}}
{{- $table := .table -}}
{{- range initial $parts -}}
{{- if not (hasKey $table .) }}{{ $_ := set $table . (dict) }}{{ end -}}
{{- $table = index $table . -}}
{{- if not (kindIs "map" $table) }}{{ fail (printf "%s: %s is no table of the configuration" $.from .) }}{{ end -}}
{{- end -}}
{{- if hasKey $table (last $parts) }}{{ fail (printf "%s sets %s, which config sets too: say it once" .from .place) }}{{ end -}}
{{- $_ := set $table (last $parts) .value -}}
{{- end -}}

{{/* One reference to a secret or a file, as it is mounted: from, place, secret or configMap, key. */}}
{{- define "smsfleet.references" -}}
{{- $list := list -}}
{{- range $i, $one := .Values.secrets -}}
{{- $list = append $list (dict "from" (printf "secrets[%d]" $i) "place" (printf "%s_file" $one.key) "secret" $one.secret "key" $one.secretKey) -}}
{{- end -}}
{{- range $i, $one := .Values.files -}}
{{- $list = append $list (dict "from" (printf "files[%d]" $i) "place" $one.key "secret" $one.secret "configMap" $one.configMap "key" $one.fileKey) -}}
{{- end -}}
{{- $passwords := dict "kafka.password" .Values.kafka.password "scylla.password" .Values.scylla.password "redis.password" .Values.redis.password "redis.sentinel_password" .Values.redis.sentinelPassword -}}
{{- range $place := keys $passwords | sortAlpha -}}
{{- with index $passwords $place -}}
{{- $list = append $list (dict "from" $place "place" (printf "%s_file" $place) "secret" .secret "key" .secretKey) -}}
{{- end -}}
{{- end -}}
{{- $entries := list (list "kafka" .Values.kafka) (list "scylla.tls" .Values.scylla.tls) (list "redis.tls" .Values.redis.tls) -}}
{{- range $entries -}}
{{- $place := index . 0 -}}
{{- with (index . 1).ca -}}
{{- $list = append $list (dict "from" (printf "%s.ca" $place) "place" (printf "%s.ca_file" $place) "secret" .secret "configMap" .configMap "key" .fileKey) -}}
{{- end -}}
{{- with (index . 1).clientCertificate -}}
{{- $from := printf "%s.clientCertificate" $place -}}
{{- $list = append $list (dict "from" $from "place" (printf "%s.certificate" $place) "secret" .secret "key" (.certificateKey | default "tls.crt")) -}}
{{- $list = append $list (dict "from" $from "place" (printf "%s.key" $place) "secret" .secret "key" (.keyKey | default "tls.key")) -}}
{{- end -}}
{{- end -}}
{{- with .Values.listen.tls -}}
{{- $list = append $list (dict "from" "listen.tls" "place" "serve.tls.certificate" "secret" .secret "key" "tls.crt") -}}
{{- $list = append $list (dict "from" "listen.tls" "place" "serve.tls.key" "secret" .secret "key" "tls.key") -}}
{{- end -}}
{{ toJson $list }}
{{- end -}}

{{/* The whole configuration as JSON, for whoever has to look at it. */}}
{{- define "smsfleet.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $said := dict "data_dir" "/var/lib/smsfleet" -}}
{{- with .Values.scylla -}}
{{- $_ := set $said "scylla.nodes" .nodes -}}
{{- $_ := set $said "scylla.keyspace" .keyspace -}}
{{- $_ := set $said "scylla.replication" .replication -}}
{{- $_ := set $said "scylla.flavour" .flavour -}}
{{- with .datacenter }}{{ $_ := set $said "scylla.datacenter" . }}{{ end -}}
{{- with .username }}{{ $_ := set $said "scylla.username" . }}{{ end -}}
{{- if .tls.enabled -}}
{{- $_ := set $said "scylla.tls.enabled" true -}}
{{- $_ := set $said "scylla.tls.verify_host" .tls.verifyHost -}}
{{- end -}}
{{- end -}}
{{- with .Values.kafka -}}
{{- $_ := set $said "kafka.brokers" .brokers -}}
{{- $_ := set $said "kafka.topic_prefix" .topicPrefix -}}
{{- $_ := set $said "kafka.replication" .replication -}}
{{- $_ := set $said "kafka.prepare_partitions" .preparePartitions -}}
{{- $_ := set $said "kafka.security" .security -}}
{{- if hasPrefix "sasl" .security -}}
{{- $_ := set $said "kafka.mechanism" .mechanism -}}
{{- $_ := set $said "kafka.username" .username -}}
{{- end -}}
{{- end -}}
{{- with .Values.redis -}}
{{- $_ := set $said "redis.nodes" .nodes -}}
{{- $_ := set $said "redis.mode" .mode -}}
{{- $_ := set $said "redis.prefix" .prefix -}}
{{- if eq .mode "sentinel" }}{{ $_ := set $said "redis.master_name" .masterName }}{{ end -}}
{{- with .username }}{{ $_ := set $said "redis.username" . }}{{ end -}}
{{- with .sentinelUsername }}{{ $_ := set $said "redis.sentinel_username" . }}{{ end -}}
{{- if .tls.enabled }}{{ $_ := set $said "redis.tls.enabled" true }}{{ end -}}
{{- end -}}
{{- if .Values.simulator.enabled -}}
{{- $_ := set $said "accounts.simulator.rate" .Values.simulator.rate -}}
{{- $_ := set $said "accounts.simulator.smpp.host" (printf "%s-simulator" (include "smsfleet.fullname" .)) -}}
{{- $_ := set $said "accounts.simulator.smpp.port" 2775 -}}
{{- $_ := set $said "accounts.simulator.smpp.system_id" "smsfleet" -}}
{{- $_ := set $said "accounts.simulator.smpp.window" 50 -}}
{{- end -}}
{{- range $place := keys $said | sortAlpha -}}
{{- include "smsfleet.set" (dict "table" $config "place" $place "value" (index $said $place) "from" (printf "the chart's value for %s" $place)) -}}
{{- end -}}
{{- range include "smsfleet.references" . | fromJsonArray -}}
{{- include "smsfleet.set" (dict "table" $config "place" .place "value" (include "smsfleet.path" .) "from" .from) -}}
{{- end -}}
{{ toJson $config }}
{{- end -}}

{{/* smsfleet.toml as it is mounted. */}}
{{- define "smsfleet.toml" -}}
# Made by the chart; every key is explained by `smsfleet check-config --reference`.
{{- include "smsfleet.toml.table" (dict "path" list "table" (include "smsfleet.config" . | fromJson)) }}
{{ end -}}

{{/* What mounts it: volumes of a pod. */}}
{{- define "smsfleet.config.volumes" -}}
{{- $secrets := dict -}}
{{- $maps := dict -}}
{{- range include "smsfleet.references" .root | fromJsonArray -}}
{{- $kind := ternary $secrets $maps (not (empty .secret)) -}}
{{- $name := .secret | default .configMap -}}
{{- $_ := set $kind $name (append (index $kind $name | default list) .key | uniq) -}}
{{- end -}}
- name: config
  configMap:
    name: {{ .configMap }}
    items: [{key: smsfleet.toml, path: smsfleet.toml}]
{{- range $i, $name := keys $secrets | sortAlpha }}
- name: secret-{{ $i }}
  secret:
    secretName: {{ $name }}
    # Readable by the program's group alone.
    defaultMode: 0440
    items:
    {{- range index $secrets $name }}
      - {key: {{ . | quote }}, path: {{ . | quote }}}
    {{- end }}
{{- end }}
{{- range $i, $name := keys $maps | sortAlpha }}
- name: file-{{ $i }}
  configMap:
    name: {{ $name }}
    items:
    {{- range index $maps $name }}
      - {key: {{ . | quote }}, path: {{ . | quote }}}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Where a container has it. Whole folders, never single files: those would keep their first content. */}}
{{- define "smsfleet.config.mounts" -}}
{{- $secrets := list -}}
{{- $maps := list -}}
{{- range include "smsfleet.references" . | fromJsonArray -}}
{{- if .secret }}{{ $secrets = append $secrets .secret | uniq }}{{ else }}{{ $maps = append $maps .configMap | uniq }}{{ end -}}
{{- end -}}
- {name: config, mountPath: /etc/smsfleet/config, readOnly: true}
{{- range $i, $name := sortAlpha $secrets }}
- {name: secret-{{ $i }}, mountPath: /etc/smsfleet/secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- range $i, $name := sortAlpha $maps }}
- {name: file-{{ $i }}, mountPath: /etc/smsfleet/files/{{ $name }}, readOnly: true}
{{- end }}
{{- end -}}
