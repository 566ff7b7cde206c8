{{/* The objectives in PromQL: what is recorded, and when their budgets burn too fast. */}}

{{/* A number as Envoy writes it into `le`, for a regular expression: Prometheus 3 makes 100 into 100.0. */}}
{{- define "slipway.le" -}}
{{- $number := toString (float64 .) -}}
{{- if eq (float64 .) (float64 (int64 .)) -}}
{{- int64 . }}(\\.0)?
{{- else -}}
{{- $number | replace "." "\\\\." -}}
{{- end -}}
{{- end -}}

{{/* Series of the front door, as callers see it. */}}
{{- define "slipway.front" -}}
envoy_http_conn_manager_prefix="front",{{ include "slipway.pods" . }}
{{- end -}}

{{/* Labels that recorded series and alerts have. */}}
{{- define "slipway.ruleLabels" -}}
namespace: {{ .Release.Namespace | quote }}
release: {{ .Release.Name | quote }}
deployment: {{ include "slipway.fullname" . }}
{{- end -}}

{{- define "slipway.recorded" -}}
namespace="{{ .Release.Namespace }}",deployment="{{ include "slipway.fullname" . }}"
{{- end -}}

{{/*
Requests that went wrong in a window: a recorded rate times the time between its samples, which the last five minutes tell. Its mean times
the window would make hundreds of the one that failed after an installation. (dict "root" $ "record" "window").
*/}}
{{- define "slipway.slo.bad" -}}
{{- $series := printf "slipway:%s:rate5m{%s}" .record (include "slipway.recorded" .root) -}}
sum_over_time({{ $series }}[{{ .window }}]) * 300 / count_over_time({{ $series }}[5m])
{{- end -}}

{{/*
Requests are those that callers sent and that were theirs to send: 2xx and 5xx (over gRPC every answer is a 200). What a caller did
wrong, 4xx with 429 in it, is none: it burns nothing. Envoy doesn't count health checks into these classes.

Failures are 5xx, and over gRPC, where the status is not HTTP's, UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and
DATA_LOSS. What is refused because too many are in flight is a failure: callers asked within their rights and got nothing. Over HTTP it is
a 503 and so in 5xx, over gRPC it is only in Envoy's own count of both; hence the larger of the two. (Envoy's tags make
`envoy_cluster_grpc_ModelInfer_14` of the status 14 of inference.GRPCInferenceService/ModelInfer.)

Late is what took longer than promised, of any kind; the share is of the requests that were answered, so that quick refusals don't
make the rest look better. It is counted pod by pod: while the promise is being changed, old pods have no such bound, and none is late.
*/}}
{{- define "slipway.slo.base" -}}
{{- $front := include "slipway.front" . -}}
{{- $blocked := printf "(sum(rate(envoy_http_adaptive_concurrency_gradient_controller_rq_blocked{%s}[5m])) or vector(0))" $front -}}
- record: slipway:requests:rate5m
  expr: sum(rate(envoy_http_downstream_rq_xx{envoy_response_code_class=~"2|5",{{ $front }}}[5m]))
- record: slipway:failures:rate5m
  expr: |-
    (
      (sum(rate(envoy_http_downstream_rq_xx{envoy_response_code_class="5",{{ $front }}}[5m])) or vector(0))
      >
      {{ $blocked }}
      or
      {{ $blocked }}
    )
    {{- range list 2 4 13 14 15 }}
    + (sum(rate(envoy_cluster_grpc_ModelInfer_{{ . }}{ {{- include "slipway.pods" $ }}}[5m])) or vector(0))
    {{- end }}
- record: slipway:late:rate5m
  expr: |-
    clamp_min(
      sum(
        sum by (pod) (rate(envoy_http_downstream_rq_time_count{ {{- $front }}}[5m]))
        - sum by (pod) (rate(envoy_http_downstream_rq_time_bucket{le=~"{{ include "slipway.le" .Values.slo.latencyMs }}",{{ $front }}}[5m]))
      ),
      0
    ) or vector(0)
- record: slipway:slo_latency:seconds
  expr: vector({{ divf .Values.slo.latencyMs 1000 }})
- record: slipway:slo_latency:ratio
  expr: vector({{ divf .Values.slo.latencyPercent 100 }})
- record: slipway:slo_availability:ratio
  expr: vector({{ divf .Values.slo.availabilityPercent 100 }})
{{- if ne .Values.autoscaling.type "none" }}
{{- range $signal, $value := include "slipway.targets" . | fromYaml }}
- record: slipway:target
  expr: vector({{ $value }})
  labels: {signal: {{ $signal }}}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Shares over the windows, from the rates above and not from the counters: three days of two series instead of three days of some
series for each pod that ever was.
*/}}
{{- define "slipway.slo.ratios" -}}
{{- $id := include "slipway.recorded" . -}}
{{- range $window := list "5m" "30m" "1h" "2h" "6h" "1d" "3d" }}
{{- $sum := dict }}
{{- range $name := list "requests" "failures" "late" }}
{{- $series := printf "slipway:%s:rate5m{%s}" $name $id }}
{{- $_ := set $sum $name (ternary $series (printf "sum_over_time(%s[%s])" $series $window) (eq $window "5m")) }}
{{- end }}
- record: slipway:failures:ratio_rate{{ $window }}
  expr: |-
    clamp_max(
      {{ $sum.failures }}
      / ({{ $sum.requests }} > 0),
      1
    )
- record: slipway:late:ratio_rate{{ $window }}
  expr: |-
    clamp_max(
      {{ $sum.late }}
      / ({{ $sum.requests }} - {{ $sum.failures }} > 0),
      1
    )
{{- end }}
{{- end -}}

{{/*
Burn rates of the Google SRE workbook (chapter 5, multiwindow, multi-burn-rate): a budget for 30 days is spent so many times too fast,
over a long window, and still is, over a short one. An objective of so little that the rate can't be reached (100 % minus it times 14.4 is
more than all) is held to nine requests of ten. (dict "root" $ "alert" "record" "percent" "summary" "description").
*/}}
{{- define "slipway.slo.burn" -}}
{{- $id := include "slipway.recorded" .root -}}
{{- range $burn := list
  (dict "factor" 14.4 "long" "1h" "short" "5m" "for" "2m" "severity" "critical")
  (dict "factor" 6.0 "long" "6h" "short" "30m" "for" "15m" "severity" "critical")
  (dict "factor" 3.0 "long" "1d" "short" "2h" "for" "1h" "severity" "warning")
  (dict "factor" 1.0 "long" "3d" "short" "6h" "for" "3h" "severity" "warning")
}}
{{- $limit := minf 0.9 (mulf $burn.factor (divf (subf 100 (float64 $.percent)) 100)) }}
- alert: {{ $.alert }}
  for: {{ $burn.for }}
  severity: {{ $burn.severity }}
  labels: {long: {{ $burn.long }}, short: {{ $burn.short }}}
  expr: |-
    slipway:{{ $.record }}:ratio_rate{{ $burn.long }}{ {{- $id }}} > {{ $limit }}
    and
    slipway:{{ $.record }}:ratio_rate{{ $burn.short }}{ {{- $id }}} > {{ $limit }}
    and
    {{ include "slipway.slo.bad" (dict "root" $.root "record" $.record "window" $burn.long) }} >= {{ $.root.Values.alerts.minBadRequests }}
  summary: {{ $.summary }}
  description: >-
    {{ $.description }} over {{ $burn.long }}, at most {{ subf 100 (float64 $.percent) }}% are promised
    over 30 days: the budget goes {{ $burn.factor }} times too fast or faster.
{{- end }}
{{- end -}}
