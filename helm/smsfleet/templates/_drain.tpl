{{/*
How long a stopped pod of a role may take, in whole seconds: the pause before the program hears of it, what it waits for answers
(`limits.drain`), and what is behind that: leaving the group, farewells, the last writes. A deliverer waits twice at most, for its
lanes and then for its sessions. tests/deploy compares these numbers with the program's own.
*/}}
{{- define "smsfleet.grace" -}}
{{- $waits := dict "coordinator" 0 "prepare" 0 "deliver" 2 "gateway" 1 -}}
{{- $behind := dict "coordinator" 20 "prepare" 20 "deliver" 20 "gateway" 20 -}}
{{- $limits := (.root.Values.config.limits | default dict) -}}
{{- $drain := $limits.drain | default 15 | toString | float64 | ceil -}}
{{- add (int .block.preStopSeconds) (mul (index $waits .role) (int $drain)) (index $behind .role) -}}
{{- end -}}

{{/* The same, or what the role's block says; what is less than the drain needs is refused. */}}
{{- define "smsfleet.graceSeconds" -}}
{{- $needed := include "smsfleet.grace" . | int -}}
{{- $said := .block.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $said -}}
{{ $needed }}
{{- else if lt (int $said) $needed -}}
{{ fail (printf "%s.terminationGracePeriodSeconds is %d, and its drain needs %d: raise it, or lower config.limits.drain" .role (int $said) $needed) }}
{{- else -}}
{{ $said }}
{{- end -}}
{{- end -}}
