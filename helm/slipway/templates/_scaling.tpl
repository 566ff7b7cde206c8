{{/* How the model is laid out: what `serve` says, or an ensemble on a GPU, where batching is worth a hop. */}}
{{- define "slipway.layout" -}}
{{- $usual := ternary "ensemble" "fused" (eq (include "slipway.hardware" . | fromYaml).modelConfig "gpu") -}}
{{- .Values.serve.layout | default $usual -}}
{{- end -}}

{{/*
Targets per replica: what the values say, or what suits the instances (docs/autoscaling.md); YAML of name → number. Busy
instances are counted in the fused layout alone; on a whole GPU its duty stands for them (a slice has none), and requests in
flight must be enough for batches.
*/}}
{{- define "slipway.targets" -}}
{{- $hardware := include "slipway.hardware" . | fromYaml -}}
{{- $instances := float64 $hardware.instances -}}
{{- $gpu := eq $hardware.modelConfig "gpu" -}}
{{- $usual := dict "inFlight" (mulf (ternary 16.0 2.0 $gpu) $instances) -}}
{{- if eq (include "slipway.layout" .) "fused" -}}
{{- $_ := set $usual "busyInstances" (mulf 0.7 $instances) -}}
{{- else if and $gpu (not (hasPrefix "mig-" .Values.hardware)) -}}
{{- $_ := set $usual "gpuDuty" 0.7 -}}
{{- end -}}
{{- range $name, $value := .Values.autoscaling.targets -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $usual $name $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $usual -}}
{{- end -}}

{{/* A quantity of Kubernetes in thousandths, as autoscaling/v2 counts; never 0. */}}
{{- define "slipway.milli" -}}
{{- printf "%dm" (max 1 (int (round (mulf 1000.0 (float64 .)) 0))) -}}
{{- end -}}

{{/* A tolerance is a quantity, which KEDA's schema takes as text only. */}}
{{- define "slipway.behavior" -}}
{{- $behavior := deepCopy .Values.autoscaling.behavior -}}
{{- range $rules := $behavior -}}
{{- if hasKey ($rules | default dict) "tolerance" -}}
{{- $_ := set $rules "tolerance" (toString $rules.tolerance) -}}
{{- end -}}
{{- end -}}
{{- toYaml $behavior -}}
{{- end -}}
