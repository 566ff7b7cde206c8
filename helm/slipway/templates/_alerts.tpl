{{/*
The alerts, without what all have (labels of the release, runbook_url); prometheusrule.yaml adds that. `severity` is `critical`,
for somebody to get up, or `warning`, for the next working day. `{{ "{{ $value }}" }}` is Prometheus' template, not Helm's.
*/}}

{{- define "slipway.alerts.slo" -}}
{{ include "slipway.slo.burn" (dict "root" . "alert" "SlipwayAvailabilityBudgetBurn" "record" "failures" "percent" .Values.slo.availabilityPercent
  "summary" "Requests fail faster than the availability objective allows"
  "description" "{{ $value | humanizePercentage }} of the requests failed") }}
{{ include "slipway.slo.burn" (dict "root" . "alert" "SlipwayLatencyBudgetBurn" "record" "late" "percent" .Values.slo.latencyPercent
  "summary" "Answers are late more often than the latency objective allows"
  "description" (printf "{{ $value | humanizePercentage }} of the answers took more than %v ms" .Values.slo.latencyMs)) }}
{{- end -}}

{{- define "slipway.alerts.endpoint" -}}
{{- $pods := include "slipway.pods" . -}}
{{- $front := include "slipway.front" . -}}
{{- $id := include "slipway.recorded" . -}}
{{- $deployment := printf "namespace=\"%s\",deployment=\"%s\"" .Release.Namespace (include "slipway.fullname" .) -}}
{{- $scalesToZero := eq (int .Values.autoscaling.minReplicas) 0 -}}
- alert: SlipwayErrors
  for: 5m
  severity: warning
  expr: |-
    slipway:failures:ratio_rate5m{ {{- $id }}} > 0.05
    and
    {{ include "slipway.slo.bad" (dict "root" . "record" "failures" "window" "15m") }} >= {{ .Values.alerts.minBadRequests }}
  summary: More than one request in twenty fails
  description: >-
    {{ "{{ $value | humanizePercentage }}" }} of the requests of the last five minutes were answered with a server error, refused because
    too many were in flight, or not in time.
- alert: SlipwayModelFailures
  for: 10m
  severity: warning
  expr: sum(rate(slipway_refused_total{reason="internal",{{ $pods }}}[5m])) > 0
  summary: The model fails at requests
  description: >-
    The model raised an error on {{ "{{ $value | humanize }}" }} requests/s, again and again for ten minutes. Their callers got a 500 or INTERNAL.
- alert: SlipwayMostRefused
  for: 15m
  severity: warning
  expr: |-
    sum(rate(envoy_http_downstream_rq_xx{envoy_response_code_class="4",{{ $front }}}[15m]))
    / (sum(rate(envoy_http_downstream_rq_xx{envoy_response_code_class=~"2|4|5",{{ $front }}}[15m])) > 0) > 0.5
    and
    sum(increase(envoy_http_downstream_rq_xx{envoy_response_code_class="4",{{ $front }}}[15m])) >= 50
  summary: More than half of the requests are refused as their callers' fault
  description: >-
    {{ "{{ $value | humanizePercentage }}" }} of the requests of the last 15 minutes got a 4xx. That burns no budget, but a lost key, an issuer
    that changed or a rate that is too low looks like this.
- alert: SlipwayQueueGrowing
  for: 10m
  severity: warning
  expr: |-
    1000 * sum(rate(slipway_queue_seconds_sum{step!="tokenize",{{ $pods }}}[5m]))
    / (sum(rate(slipway_queue_seconds_count{step!="tokenize",{{ $pods }}}[5m])) > 0)
    > {{ divf .Values.slo.latencyMs 4 }}
  summary: Requests wait for more than a quarter of the promised latency
  description: >-
    A request waited {{ "{{ $value | humanize }}" }} ms on average before the model took it up; {{ .Values.slo.latencyMs }} ms are promised for all of it.
- alert: SlipwayGpuMemoryHigh
  for: 15m
  severity: warning
  expr: |-
    max by (pod, gpu_uuid) (
      nv_gpu_memory_used_bytes{ {{- $pods }}} / (nv_gpu_memory_total_bytes{ {{- $pods }}} > 0)
    ) > 0.95
  summary: A GPU's memory is nearly full
  description: >-
    {{ "{{ $value | humanizePercentage }}" }} of the memory of {{ "{{ $labels.gpu_uuid }}" }} at {{ "{{ $labels.pod }}" }} is used. A longer batch, or a new version
    beside the old, may find none.
- alert: SlipwayGpuDutyHigh
  for: 30m
  severity: warning
  expr: avg(nv_gpu_utilization{ {{- $pods }}}) > 0.95
  summary: The GPUs have no room left
  description: >-
    The GPUs of all replicas were busy {{ "{{ $value | humanizePercentage }}" }} of the time, for half an hour.
- alert: SlipwayReplicasAtMaximum
  for: 15m
  severity: warning
  expr: |-
    max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_status_current_replicas{ {{- include "slipway.autoscalers" . }}})
    >= on (horizontalpodautoscaler)
    max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_spec_max_replicas{ {{- include "slipway.autoscalers" . }}})
    unless on (horizontalpodautoscaler)
    max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_spec_min_replicas{ {{- include "slipway.autoscalers" . }}})
    >= on (horizontalpodautoscaler)
    max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_spec_max_replicas{ {{- include "slipway.autoscalers" . }}})
  summary: The autoscaler can't add replicas
  description: >-
    {{ "{{ $value }}" }} replicas, as many as maxReplicas allows, for 15 minutes. More traffic is met by refusals.
- alert: SlipwayAutoscalerBlind
  for: 15m
  severity: warning
  expr: |-
    max by (horizontalpodautoscaler) (
      kube_horizontalpodautoscaler_status_condition{condition="ScalingActive",status="false",{{ include "slipway.autoscalers" . }}}
    ) == 1
    and on ()
    max(kube_deployment_spec_replicas{ {{- $deployment }}}) > 0
  summary: The autoscaler has no metrics to scale by
  description: >-
    {{ "{{ $labels.horizontalpodautoscaler }}" }} has not been able to compute a number of replicas for 15 minutes; it keeps what is there.
- alert: SlipwayNoPodReady
  for: 5m
  severity: critical
  expr: |-
    max(kube_deployment_status_replicas_ready{ {{- $deployment }}}) == 0
    and
    max(kube_deployment_spec_replicas{ {{- $deployment }}}) > 0
  summary: No replica answers
  description: >-
    No pod of {{ include "slipway.fullname" . }} has been ready for five minutes. Every request fails.
- alert: SlipwayPodsNotReady
  for: {{ add (int .Values.startupSeconds) 300 }}s
  severity: warning
  expr: |-
    max(kube_deployment_spec_replicas{ {{- $deployment }}}) - max(kube_deployment_status_replicas_ready{ {{- $deployment }}}) > 0
  summary: Replicas are missing for longer than they may take to start
  description: >-
    {{ "{{ $value }}" }} of the replicas that are asked for are not ready, and a start may take {{ int .Values.startupSeconds }} s.
- alert: SlipwayModelNotLoaded
  for: 5m
  severity: warning
  expr: |-
    max by (pod) (envoy_cluster_membership_healthy{envoy_cluster_name=~".+_(http|grpc)",{{ $pods }}}) == 0
  summary: A replica has no model that answers
  description: >-
    The model of {{ "{{ $labels.pod }}" }} has failed a real inference for five minutes, through the repairs that the endpoint makes by itself.
- alert: SlipwayComponentDown
  for: 5m
  severity: warning
  expr: max by (pod, component, backend) (slipway_up{ {{- $pods }}}) == 0
  summary: A part of a replica does not answer
  description: >-
    {{ "{{ $labels.component }}" }}{{ "{{ with $labels.backend }} ({{ . }}){{ end }}" }} at {{ "{{ $labels.pod }}" }} has not answered a scrape for five minutes.
- alert: SlipwayMetricsMissing
  for: 10m
  severity: warning
  expr: |-
    max by (pod) (up{ {{- $pods }}}) == 0
    or
    {{- if $scalesToZero }}
    (max(kube_deployment_status_replicas_ready{ {{- $deployment }}}) > 0 and on () absent(slipway_up{ {{- $pods }}}))
    {{- else }}
    absent(slipway_up{ {{- $pods }}})
    {{- end }}
    or
    (
      sum(slipway_up{component="envoy",{{ $pods }}}) > 0
      unless on () envoy_http_downstream_rq_time_bucket{le=~"{{ include "slipway.le" .Values.slo.latencyMs }}",{{ $front }}}
    )
  summary: Metrics are missing, so that other alerts are blind
  description: >-
    {{ "{{ if $labels.pod }}Prometheus can't scrape {{ $labels.pod }}.{{ else }}Prometheus has no metrics of any pod, or none of how many answers took" }}
    {{ .Values.slo.latencyMs }} {{ "ms at most.{{ end }}" }}
- alert: SlipwayCaptureDropped
  for: 30m
  severity: warning
  expr: |-
    sum by (outcome) (rate(slipway_captured_rows_total{outcome!="written",{{ $pods }}}[30m]))
    / on () group_left ()
    (sum(rate(slipway_captured_rows_total{ {{- $pods }}}[30m])) > 0) > 0.01
  summary: Texts that were chosen for retraining are lost
  description: >-
    {{ "{{ $value | humanizePercentage }} of the texts that were chosen are not written ({{ $labels.outcome }})." }}
{{ range $severity, $days := dict "warning" (float64 .Values.alerts.certificateDays) "critical" (divf .Values.alerts.certificateDays 7) -}}
- alert: SlipwayCertificateExpiring
  for: 15m
  severity: {{ $severity }}
  expr: |-
    min(envoy_server_days_until_first_cert_expiring{ {{- $pods }}}) < {{ $days }}
    or
    (
      min(
        certmanager_certificate_expiration_timestamp_seconds{name="{{ include "slipway.fullname" $ }}",namespace="{{ $.Release.Namespace }}"}
        or
        certmanager_certificate_expiration_timestamp_seconds{name="{{ include "slipway.fullname" $ }}",exported_namespace="{{ $.Release.Namespace }}"}
      ) - time()
    ) / 86400 < {{ $days }}
  summary: A certificate ends soon and has not been renewed
  description: >-
    {{ "{{ $value | printf \"%.1f\" }}" }} days are left; then every connection with TLS fails.
{{ end }}
{{- end -}}

{{/* Of an HPA, or the one that KEDA makes. */}}
{{- define "slipway.autoscalers" -}}
namespace="{{ .Release.Namespace }}",horizontalpodautoscaler=~"(keda-hpa-)?{{ include "slipway.fullname" . }}"
{{- end -}}

{{/* A day of answers, beside that of a week ago; recorded, so that a week ago is one sample to read. Below the floor there is no share. */}}
{{- define "slipway.drift.records" -}}
{{- $pods := include "slipway.pods" . -}}
{{- $least := int .Values.alerts.drift.minTexts -}}
- record: slipway:predictions:share1d
  expr: |-
    sum by (label) (increase(slipway_predictions_total{ {{- $pods }}}[1d]))
    / on () group_left ()
    (sum(increase(slipway_predictions_total{ {{- $pods }}}[1d])) >= {{ $least }} > 0)
- record: slipway:confidence:mean1d
  expr: |-
    sum(increase(slipway_confidence_sum{ {{- $pods }}}[1d]))
    / (sum(increase(slipway_confidence_count{ {{- $pods }}}[1d])) >= {{ $least }} > 0)
{{- end -}}

{{- define "slipway.alerts.drift" -}}
{{- $id := include "slipway.recorded" . -}}
- alert: SlipwayPredictionDrift
  for: 1h
  severity: warning
  expr: |-
    abs(slipway:predictions:share1d{ {{- $id }}} - slipway:predictions:share1d{ {{- $id }}} offset 1w) > {{ divf .Values.alerts.drift.sharePoints 100 }}
  summary: A label is given much more or less often than a week ago
  description: >-
    The share of {{ "{{ $labels.label }}" }} in a day of answers moved by {{ "{{ $value | humanizePercentage }}" }} of all within a week.
- alert: SlipwayConfidenceDrift
  for: 1h
  severity: warning
  expr: |-
    abs(slipway:confidence:mean1d{ {{- $id }}} - slipway:confidence:mean1d{ {{- $id }}} offset 1w) > {{ divf .Values.alerts.drift.confidencePoints 100 }}
  summary: The model is surer or less sure than a week ago
  description: >-
    The mean probability of the labels that were given in a day moved by {{ "{{ $value | humanizePercentage }}" }} within a week.
{{- end -}}
