{{/*
What the endpoint is scaled by, as PromQL for KEDA. Each query is the total over the release's pods, for
`metricType: AverageValue`: the autoscaler divides by the replicas, so a target is what one replica should have. They are what
prometheus-adapter.yaml makes for an HPA, summed; `queueMs` and `gpuDuty` are sums of the pods' means for the same reason.

All exist at zero traffic, as the endpoint counts from 0 on. They don't where no pod is scraped: with `ignoreNullValues: "false"`
KEDA then fails, and the autoscaler keeps what is there, instead of taking an outage of Prometheus for a night without traffic.
Only where `minReplicas` is 0, and no pod is an ordinary state, an absent series is 0.
*/}}

{{/* Matchers of the release's pods: Deployment-ReplicaSet-id; a name that is cut has no last dash. */}}
{{- define "slipway.pods" -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "slipway.fullname" . }}(-[^-]+){1,2}"
{{- end -}}

{{/* Four scrapes, so that one may be missed, and a minute at least: what counters' rates are taken over. */}}
{{- define "slipway.signal.window" -}}
{{- $interval := .Values.observability.scrapeInterval -}}
{{- if not (regexMatch "^[1-9][0-9]*(s|m)$" $interval) -}}
{{- fail (printf "observability.scrapeInterval must be whole seconds or minutes, such as 10s; it is %q" $interval) -}}
{{- end -}}
{{- $seconds := mul (int (regexFind "[0-9]+" $interval)) (ternary 60 1 (hasSuffix "m" $interval)) -}}
{{- max 60 (mul 4 $seconds) -}}s
{{- end -}}

{{- define "slipway.signal.orNone" -}}
{{- if eq (int .Values.autoscaling.minReplicas) 0 }} or vector(0){{ end -}}
{{- end -}}

{{/* Requests that wait or run. */}}
{{- define "slipway.signal.inFlight" -}}
sum(envoy_http_downstream_rq_active{envoy_http_conn_manager_prefix="front",{{ include "slipway.pods" . }}}){{ include "slipway.signal.orNone" . }}
{{- end -}}

{{/* Model instances that work. In an ensemble nobody counts the encoder's batches, so it isn't scaled by there. */}}
{{- define "slipway.signal.busyInstances" -}}
sum(rate(slipway_execute_seconds_sum{step="fused",{{ include "slipway.pods" . }}}[{{ include "slipway.signal.window" . }}])){{ include "slipway.signal.orNone" . }}
{{- end -}}

{{/* Mean milliseconds in the queue, of each pod, summed. A rate that is not 0 is far above 1e-9. */}}
{{- define "slipway.signal.queueMs" -}}
{{- $series := printf "step!=\"tokenize\",%s}[%s]" (include "slipway.pods" .) (include "slipway.signal.window" .) -}}
sum(1000 * sum by (pod) (rate(slipway_queue_seconds_sum{ {{- $series }})) / clamp_min(sum by (pod) (rate(slipway_queue_seconds_count{ {{- $series }})), 1e-9)){{ include "slipway.signal.orNone" . }}
{{- end -}}

{{/* Busy share of the GPUs, 0 to 1, mean of each pod, summed. */}}
{{- define "slipway.signal.gpuDuty" -}}
sum(avg by (pod) (nv_gpu_utilization{ {{- include "slipway.pods" . }}})){{ include "slipway.signal.orNone" . }}
{{- end -}}
