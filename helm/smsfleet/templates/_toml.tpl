{{/* Values as TOML. Helm's own `toToml` writes every number of a values file as a float, which the program refuses. */}}

{{/* One value on one line. */}}
{{- define "smsfleet.toml.value" -}}
{{- if kindIs "map" . -}}
{ {{- range $i, $key := keys . | sortAlpha }}{{ if $i }}, {{ else }} {{ end }}{{ $key | toJson }} = {{ include "smsfleet.toml.value" (index $ $key) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{- range $i, $item := . }}{{ if $i }}, {{ end }}{{ include "smsfleet.toml.value" $item }}{{ end -}}]
{{- else if kindIs "float64" . -}}
{{- if eq (float64 (int64 .)) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else if or (kindIs "string" .) -}}
{{ toJson . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{/* A table: its values, then the tables in it. `path` is the name it has, a list. */}}
{{- define "smsfleet.toml.table" -}}
{{- $path := .path -}}
{{- $table := .table -}}
{{- $heading := list -}}
{{- range $path }}{{ $heading = append $heading (ternary . (toJson .) (regexMatch "^[A-Za-z0-9_-]+$" .)) }}{{ end -}}
{{- if $path }}
[{{ join "." $heading }}]
{{- end }}
{{- range $key := keys $table | sortAlpha }}
{{- $value := index $table $key }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ ternary $key (toJson $key) (regexMatch "^[A-Za-z0-9_-]+$" $key) }} = {{ include "smsfleet.toml.value" $value }}
{{- end }}
{{- end }}
{{- range $key := keys $table | sortAlpha }}
{{- $value := index $table $key }}
{{- if kindIs "map" $value }}
{{ include "smsfleet.toml.table" (dict "path" (append $path $key) "table" $value) }}
{{- end }}
{{- end }}
{{- end -}}
