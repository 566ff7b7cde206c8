{{/* Targets per replica: what the values say, or what suits the instances (docs/autoscaling.md); YAML of name → number. */}}
{{- define "slipway.targets" -}}
{{- $hardware := include "slipway.hardware" . | fromYaml -}}
{{- $instances := float64 $hardware.instances -}}
{{- $targets := deepCopy .Values.autoscaling.targets -}}
{{- if kindIs "invalid" $targets.busyInstances -}}
{{- $_ := set $targets "busyInstances" (mulf 0.7 $instances) -}}
{{- end -}}
{{- if kindIs "invalid" $targets.inFlight -}}
{{- $_ := set $targets "inFlight" (mulf 2.0 $instances) -}}
{{- end -}}
{{- range $name, $value := $targets -}}
{{- if not (kindIs "invalid" $value) }}
{{ $name }}: {{ $value }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A quantity of Kubernetes in thousandths, as autoscaling/v2 counts; never 0. */}}
{{- define "slipway.milli" -}}
{{- printf "%dm" (max 1 (int (round (mulf 1000.0 (float64 .)) 0))) -}}
{{- end -}}

{{- define "slipway.behavior" -}}
{{- toYaml .Values.autoscaling.behavior -}}
{{- end -}}
