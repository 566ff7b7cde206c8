{{/*
Load tests of this release in its own cluster: what their pods have in common. Three kinds: `run` (loadtest.enabled),
`capacity` (loadtest.capacity) and `test` (helm test). Most helpers take (dict "root" $ "kind" KIND).
*/}}

{{/* Name that leaves room for what is appended: a CronJob's may have 52 characters, a Job's 63. */}}
{{- define "slipway.loadtest.name" -}}
{{- $full := include "slipway.fullname" . -}}
{{- if gt (len $full) 35 -}}
{{- $full = printf "%s-%s" ($full | trunc 26 | trimAll "-") (sha256sum $full | trunc 8) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{/* Whether there are pods of load tests at all. */}}
{{- define "slipway.loadtest.any" -}}
{{- with .Values.loadtest -}}
{{- if or .enabled .test.enabled .capacity.enabled -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* The recipe's `loadtest` section for a kind: values.loadtest.recipe, and what is the chart's to say. */}}
{{- define "slipway.loadtest.section" -}}
{{- $values := .root.Values -}}
{{- $section := deepCopy $values.loadtest.recipe -}}
{{- $own := dict "workers" (int $values.loadtest.workers) -}}
{{- if eq .kind "test" -}}
{{- $section = omit $section "arrivals" "loop" "users" "think_s" "chaos" "capacity" "compare" "seed" "slo" -}}
{{- $own = dict "workers" 1 "rate" $values.loadtest.test.rate "duration_s" $values.loadtest.test.durationSeconds "warmup_s" 5 -}}
{{- end -}}
{{- if not $section.slo -}}
{{- /* What values.slo promises: that share of the requests rightly and in time, and so few not at all. */ -}}
{{- $slo := dict "goodput" (round (divf $values.slo.latencyPercent 100) 8) "goodput_ms" $values.slo.latencyMs -}}
{{- $_ := set $slo "error_rate" (round (divf (subf 100 $values.slo.availabilityPercent) 100) 8) -}}
{{- $_ := set $own "slo" $slo -}}
{{- end -}}
{{- if $values.loadtest.existingSecret -}}
{{- $_ := set $own "credentials" (dict "environment" "SLIPWAY_LOADTEST_KEY") -}}
{{- end -}}
{{- if ne $values.tls.type "none" -}}
{{- $tls := dict -}}
{{- if include "slipway.loadtest.caSecret" .root -}}
{{- $_ := set $tls "ca" "/etc/slipway/ca/ca.crt" -}}
{{- end -}}
{{- if $values.loadtest.tls.clientSecret -}}
{{- $_ := set $tls "certificate" "/etc/slipway/client/tls.crt" -}}
{{- $_ := set $tls "key" "/etc/slipway/client/tls.key" -}}
{{- end -}}
{{- $_ := set $own "tls" $tls -}}
{{- end -}}
{{- /* A Service balances connections, not requests: a few of them would load a few of the replicas. */ -}}
{{- $defaults := dict "connections" (ternary 8 32 (eq .kind "test")) -}}
{{- toYaml (mergeOverwrite $defaults $section $own) -}}
{{- end -}}

{{/* Secret with the authority of the endpoint's certificate; empty where it is one that everybody trusts. */}}
{{- define "slipway.loadtest.caSecret" -}}
{{- if kindIs "invalid" .Values.loadtest.tls.caSecret -}}
{{- include "slipway.tlsSecret" . -}}
{{- else -}}
{{- .Values.loadtest.tls.caSecret -}}
{{- end -}}
{{- end -}}

{{/* This release's own Service. */}}
{{- define "slipway.loadtest.address" -}}
{{- printf "%s://%s.%s.svc:%d" (ternary "http" "https" (eq .Values.tls.type "none")) (include "slipway.fullname" .) .Release.Namespace (int .Values.service.port) -}}
{{- end -}}

{{/* Where a verdict goes. A pod's name is the Job's and its time's. */}}
{{- define "slipway.loadtest.out" -}}
{{- ternary "/results/$(POD_NAME)" "/tmp/verdict" (not (empty .Values.loadtest.resultsClaim)) -}}
{{- end -}}

{{/* The artifact's path in a load test pod: what the serving image carries is copied out of it. */}}
{{- define "slipway.loadtest.modelPath" -}}
{{- ternary "/models/artifact" (include "slipway.model.path" .) (eq .Values.model.source.type "baked") -}}
{{- end -}}

{{- define "slipway.loadtest.image" -}}
{{- $image := .Values.loadtest.image -}}
{{- include "slipway.imageReference" (dict "repository" $image.repository "tag" (coalesce $image.tag .Values.image.tag .Chart.AppVersion) "digest" $image.digest) -}}
{{- end -}}

{{/* Seconds that a run may take in all: waiting for nodes, images, workers and the endpoint, then the load. */}}
{{- define "slipway.loadtest.deadline" -}}
{{- $recipe := .root.Values.loadtest.recipe -}}
{{- $load := add (int (ceil ($recipe.warmup_s | default 3))) (int (ceil ($recipe.duration_s | default 30))) -}}
{{- if eq .kind "capacity" -}}
{{- $load = mul 2 (int (ceil (dig "capacity" "time_budget_s" 300 $recipe))) -}}
{{- else if eq .kind "test" -}}
{{- $load = add 5 (int (ceil .root.Values.loadtest.test.durationSeconds)) -}}
{{- end -}}
{{- add 1800 $load -}}
{{- end -}}

{{- define "slipway.loadtest.labels" -}}
{{- include "slipway.labels" (dict "root" .root "component" "loadtest") -}}
{{- end -}}

{{/* Labels of pods; a Service finds its master by the last one. (dict "root" $ "role" "run-master") */}}
{{- define "slipway.loadtest.podLabels" -}}
{{ include "slipway.selectorLabels" (dict "root" .root "component" "loadtest") }}
slipway/loadtest: {{ .role }}
{{- end -}}

{{/* (dict "root" $ "kind" KIND "role" ROLE "args" LIST "model" BOOL): of a pod that drives or sends. */}}
{{- define "slipway.loadtest.podSpec" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $results := and .model (ne .kind "test") $values.loadtest.resultsClaim -}}
serviceAccountName: {{ include "slipway.serviceAccountName" $root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
restartPolicy: Never
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "slipway.podSecurityContext" $root | nindent 2 }}
terminationGracePeriodSeconds: 15
nodeSelector: {kubernetes.io/arch: amd64}
# A generator beside the server takes from it what it measures.
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "slipway.selectorLabels" (dict "root" $root "component" "endpoint") | nindent 14 }}
      - weight: 50
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "slipway.selectorLabels" (dict "root" $root "component" "loadtest") | nindent 14 }}
{{- if .model }}
{{- if eq $values.model.source.type "baked" }}
initContainers:
  - name: copy
    image: {{ include "slipway.image" $root | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    command: [cp, -r, {{ $values.model.path | quote }}, /models/artifact]
    securityContext:
      {{- include "slipway.securityContext" $root | nindent 6 }}
    resources:
      requests: {cpu: 100m, memory: 128Mi}
      limits: {cpu: "1", memory: 256Mi}
    volumeMounts:
      - name: model
        mountPath: /models
{{- else }}
{{- with include "slipway.model.initContainers" $root }}
initContainers:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
containers:
  - name: loadtest
    image: {{ include "slipway.loadtest.image" $root | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    # The image's entry point is slipway behind an init, which hands signals on.
    args:
      - loadtest
      {{- range .args }}
      - {{ . | quote }}
      {{- end }}
    env:
      - name: HOME
        value: /tmp
      - name: TMPDIR
        value: /tmp
      # Of the table in the log.
      - name: COLUMNS
        value: "120"
      - name: POD_NAME
        valueFrom:
          fieldRef: {fieldPath: metadata.name}
      {{- with $values.loadtest.existingSecret }}
      - name: SLIPWAY_LOADTEST_KEY
        valueFrom:
          secretKeyRef:
            name: {{ . | quote }}
            key: {{ $values.loadtest.key | quote }}
      {{- end }}
    {{- if hasSuffix "-master" .role }}
    ports:
      - name: master
        containerPort: 5557
    {{- end }}
    # The sentence that says why, where `kubectl describe` shows it.
    terminationMessagePolicy: FallbackToLogsOnError
    securityContext:
      {{- include "slipway.securityContext" $root | nindent 6 }}
    resources:
      {{- toYaml $values.loadtest.resources | nindent 6 }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      {{- if .model }}
      - name: recipe
        mountPath: /etc/slipway/loadtest
        readOnly: true
      {{- if eq $values.model.source.type "baked" }}
      - name: model
        mountPath: /models
        readOnly: true
      {{- else }}
      {{- with include "slipway.model.volumeMounts" $root }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- end }}
      {{- end }}
      {{- if $results }}
      - name: results
        mountPath: /results
      {{- end }}
      {{- if ne $values.tls.type "none" }}
      {{- if include "slipway.loadtest.caSecret" $root }}
      - name: ca
        mountPath: /etc/slipway/ca
        readOnly: true
      {{- end }}
      {{- if $values.loadtest.tls.clientSecret }}
      - name: client
        mountPath: /etc/slipway/client
        readOnly: true
      {{- end }}
      {{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: {{ int $values.scratchMiB }}Mi
  {{- if .model }}
  - name: recipe
    configMap:
      name: {{ include "slipway.loadtest.name" $root }}-loadtest
  {{- if eq $values.model.source.type "baked" }}
  - name: model
    emptyDir:
      sizeLimit: {{ int $values.scratchMiB }}Mi
  {{- else }}
  {{- with include "slipway.model.volumes" $root }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- end }}
  {{- end }}
  {{- if $results }}
  - name: results
    persistentVolumeClaim:
      claimName: {{ $values.loadtest.resultsClaim | quote }}
  {{- end }}
  {{- if ne $values.tls.type "none" }}
  {{- with include "slipway.loadtest.caSecret" $root }}
  # The authority alone: the server's key is the server's.
  - name: ca
    secret:
      secretName: {{ . | quote }}
      defaultMode: 0440
      items:
        - {key: ca.crt, path: ca.crt}
  {{- end }}
  {{- with $values.loadtest.tls.clientSecret }}
  - name: client
    secret:
      secretName: {{ . | quote }}
      defaultMode: 0440
  {{- end }}
  {{- end }}
{{- end -}}

{{/* Arguments of `slipway loadtest` that every kind of master has. */}}
{{- define "slipway.loadtest.masterArgs" -}}
{{- $args := list "run" (include "slipway.loadtest.modelPath" .root) -}}
{{- $args = append $args (printf "--recipe=/etc/slipway/loadtest/%s.yaml" .kind) -}}
{{- $args = append $args (printf "--address=%s" (include "slipway.loadtest.address" .root)) -}}
{{- /* Not this machine, but this release. */ -}}
{{- $args = concat $args (list "--allow-remote" "--wait=10m") -}}
{{- if eq .kind "test" -}}
{{- $args = append $args "--out=/tmp/verdict" -}}
{{- else -}}
{{- $args = concat $args (list "--master=0.0.0.0:5557" (printf "--out=%s" (include "slipway.loadtest.out" .root))) -}}
{{- end -}}
{{- if eq .kind "capacity" -}}
{{- $args = append $args "--capacity" -}}
{{- end -}}
{{- toYaml $args -}}
{{- end -}}

{{/* One of several workers of a `run` or `capacity`. */}}
{{- define "slipway.loadtest.workerArgs" -}}
{{- $service := printf "%s-%s" (include "slipway.loadtest.name" .root) (ternary "capacity" "loadtest" (eq .kind "capacity")) -}}
{{- $args := list "worker" (printf "--master=%s.%s.svc:5557" $service .root.Release.Namespace) "--allow-remote" "--wait=10m" -}}
{{- if eq .kind "run" -}}
{{- $args = append $args "--once" -}}
{{- end -}}
{{- toYaml $args -}}
{{- end -}}

{{/* A Job's spec: it fails if its pod does, once and for all. */}}
{{- define "slipway.loadtest.jobSpec" -}}
{{- $worker := hasSuffix "-worker" .role -}}
{{- $template := ternary "slipway.loadtest.workerArgs" "slipway.loadtest.masterArgs" $worker -}}
{{- $args := include $template . | fromYamlArray -}}
{{- if $worker -}}
completions: {{ int .root.Values.loadtest.workers }}
parallelism: {{ int .root.Values.loadtest.workers }}
{{ end -}}
# A measurement that failed is not repeated until it passes.
backoffLimit: 0
activeDeadlineSeconds: {{ include "slipway.loadtest.deadline" . }}
ttlSecondsAfterFinished: 86400
template:
  metadata:
    labels:
      {{- include "slipway.loadtest.podLabels" . | nindent 6 }}
  spec:
    {{- include "slipway.loadtest.podSpec" (merge (dict "args" $args "model" (not $worker)) .) | nindent 4 }}
{{- end -}}

{{/*
What a Job's name ends in: a Job can't be changed, so another upgrade or another recipe is another Job. Where a chart
is only rendered (GitOps), the revision stays and the rest decides.
*/}}
{{- define "slipway.loadtest.hash" -}}
{{- $master := include "slipway.loadtest.jobSpec" (dict "root" . "kind" "run" "role" "run-master") -}}
{{- $worker := include "slipway.loadtest.jobSpec" (dict "root" . "kind" "run" "role" "run-worker") -}}
{{- $section := include "slipway.loadtest.section" (dict "root" . "kind" "run") -}}
{{- printf "%d\n%s\n%s\n%s" .Release.Revision $master $worker $section | sha256sum | trunc 8 -}}
{{- end -}}
