{{/* The recipe's `serve` section: what values.serve says, and what is the chart's to say. */}}

{{- define "slipway.serve" -}}
{{- $hardware := include "slipway.hardware" . | fromYaml -}}
{{- $gpu := eq $hardware.modelConfig "gpu" -}}
{{- $auth := dict "keyless" "never" -}}
{{- if .Values.auth.apiKeys.existingSecret -}}
{{- $_ := set $auth "keys" (printf "/etc/slipway/keys/%s" .Values.auth.apiKeys.key) -}}
{{- end -}}
{{- with .Values.auth.jwt -}}
{{- if or .existingSecret .existingConfigMap -}}
{{- $_ := set $auth "jwks" (printf "/etc/slipway/jwks/%s" .key) -}}
{{- $_ := set $auth "issuer" .issuer -}}
{{- $_ := set $auth "audiences" .audiences -}}
{{- end -}}
{{- end -}}
{{- $own := dict "host" "0.0.0.0" "port" 8080 "target" $hardware.modelConfig "auth" $auth -}}
{{- if ne .Values.tls.type "none" -}}
{{- $tls := dict "certificate" "/etc/slipway/tls/tls.crt" "key" "/etc/slipway/tls/tls.key" -}}
{{- if .Values.tls.clientCaSecret -}}
{{- $_ := set $tls "client_ca" "/etc/slipway/client-ca/ca.crt" -}}
{{- end -}}
{{- $_ := set $own "tls" $tls -}}
{{- end -}}
{{- $observe := dict "metrics_host" "0.0.0.0" "metrics_port" 9090 "logs" "json" "access_log" "stdout" "service" (include "slipway.fullname" .) -}}
{{- with .Values.observability.otlp -}}
{{- $_ := set $observe "otlp" . -}}
{{- $_ := set $observe "trace_sample" $.Values.observability.traceSample -}}
{{- end -}}
{{- if .Values.capture.rate -}}
{{- $_ := set $observe "capture" (dict "rate" .Values.capture.rate "directory" "/var/lib/slipway/capture" "max_mb" .Values.capture.maxMb) -}}
{{- end -}}
{{- $_ := set $own "observe" $observe -}}
{{- /* Defaults, which values.serve may replace. */ -}}
{{- $defaults := dict "limits" (dict "slo_ms" .Values.slo.latencyMs) -}}
{{- if $gpu -}}
{{- $_ := set $defaults "layout" (include "slipway.layout" .) -}}
{{- $_ := set $defaults "gpu" (dict "instances" (int $hardware.instances) "engine_cache" "/var/cache/slipway/tensorrt") -}}
{{- else -}}
{{- $_ := set $defaults "instances" (int $hardware.instances) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $defaults (deepCopy .Values.serve) $own) -}}
{{- end -}}

{{/* Seconds that requests may take to be answered when a pod goes; the recipe's default unless told. */}}
{{- define "slipway.graceSeconds" -}}
{{- .Values.serve.grace_s | default 15 | ceil | int -}}
{{- end -}}
