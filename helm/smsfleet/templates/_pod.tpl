{{/* What all pods share. */}}

{{/* Restricted, as the Pod Security Standards have it, and with nothing to write to but what is mounted. */}}
{{- define "smsfleet.pod.security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "smsfleet.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What every pod says about itself, whoever runs in it. */}}
{{- define "smsfleet.pod.common" -}}
automountServiceAccountToken: false
# Kubernetes would add a variable SMSFLEET_…_PORT for each service, which the program takes for a key of its configuration.
enableServiceLinks: false
securityContext:
  {{- include "smsfleet.pod.security" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . | quote }}}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The environment of the program. */}}
{{- define "smsfleet.environment" -}}
- name: SMSFLEET_CONFIG
  value: /etc/smsfleet/config/smsfleet.toml
{{- end -}}

{{/* Where a role listens: on the pod's own address, or on all. */}}
{{- define "smsfleet.listen" -}}
{{- $port := .Values.listen.port | int -}}
{{- if eq .Values.listen.address "podIP" -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: SMSFLEET_SERVE__LISTEN
  value: {{ ternary (printf "[$(POD_IP)]:%d" $port) (printf "$(POD_IP):%d" $port) (eq .Values.listen.ipFamily "IPv6") | quote }}
{{- else -}}
- name: SMSFLEET_SERVE__LISTEN
  value: {{ ternary (printf "[::]:%d" $port) (printf "0.0.0.0:%d" $port) (eq .Values.listen.ipFamily "IPv6") | quote }}
{{- end -}}
{{- end -}}

{{- define "smsfleet.scheme" -}}
{{ ternary "HTTPS" "HTTP" (not (empty .Values.listen.tls)) }}
{{- end -}}

{{- define "smsfleet.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ include "smsfleet.scheme" .root }}
{{ toYaml .times }}
{{- end -}}

{{/* The list of a few people that `helm test` and a first batch are sent to; planning and preparing read it. */}}
{{- define "smsfleet.sample.mount" -}}
{name: sample, mountPath: /etc/smsfleet/sample, readOnly: true}
{{- end -}}
