{{/* Names and labels of all objects. */}}

{{- define "smsfleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if contains $name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What finds the pods of a role: it never changes, as selectors may not. */}}
{{- define "smsfleet.selector" -}}
app.kubernetes.io/name: {{ .root.Values.nameOverride | default .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "smsfleet.labels" -}}
{{ include "smsfleet.selector" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "smsfleet.serviceAccount" -}}
{{- if .root.Values.serviceAccount.create -}}
{{ include "smsfleet.fullname" .root }}-{{ .role }}
{{- else -}}
{{ .root.Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "smsfleet.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* A role's own block over `defaults`: tables are merged, anything else of the role's replaces. As YAML. */}}
{{- define "smsfleet.role" -}}
{{- $merged := deepCopy .root.Values.defaults -}}
{{- range $key, $value := index .root.Values .role -}}
{{- $default := index $merged $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $default) -}}
{{- range $inner, $innerValue := $value -}}{{- $_ := set $default $inner $innerValue -}}{{- end -}}
{{- else -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- end -}}
{{ toYaml $merged }}
{{- end -}}
