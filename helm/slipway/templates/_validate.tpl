{{/* Combinations that no schema can name well: one sentence for each, all at once. */}}
{{- define "slipway.validate" -}}
{{- $wrong := list -}}
{{- $source := .Values.model.source -}}
{{- $kube := .Capabilities.KubeVersion.Version -}}

{{- if not (regexMatch "^[a-z]" .Release.Name) -}}
{{- $wrong = append $wrong (printf "the release's name must begin with a letter, as that of its Service; it is %s." .Release.Name) -}}
{{- end -}}

{{- if not $source.type -}}
{{- $wrong = append $wrong "model.source.type is needed: image, objectStore, claim or baked." -}}
{{- end -}}
{{- if and (eq $source.type "image") (not $source.image.reference) -}}
{{- $wrong = append $wrong "model.source.image.reference is needed for model.source.type image." -}}
{{- end -}}
{{- if and (eq $source.type "image") (semverCompare "<1.31.0-0" $kube) -}}
{{- $wrong = append $wrong (printf "model.source.type image needs Kubernetes 1.31 with image volumes; this is %s. Use objectStore, claim or baked." $kube) -}}
{{- end -}}
{{- if and (eq $source.type "objectStore") (or (not $source.objectStore.url) (not .Values.model.digest)) -}}
{{- $wrong = append $wrong "model.source.objectStore.url and model.digest are needed for model.source.type objectStore: what is fetched is checked against the digest." -}}
{{- end -}}
{{- if and (eq $source.type "claim") (not $source.claim.name) -}}
{{- $wrong = append $wrong "model.source.claim.name is needed for model.source.type claim." -}}
{{- end -}}
{{- if and (eq $source.type "baked") (not (hasPrefix "/" (.Values.model.path | default ""))) -}}
{{- $wrong = append $wrong "model.path must be the artifact's absolute path in the serving image for model.source.type baked." -}}
{{- end -}}
{{- if and (eq $source.type "objectStore") .Values.model.path -}}
{{- $wrong = append $wrong "model.path is not used with model.source.type objectStore; put the folder into the url." -}}
{{- end -}}

{{- if and (eq .Values.hardware "own") (or (kindIs "invalid" .Values.resources) (kindIs "invalid" .Values.instances)) -}}
{{- $wrong = append $wrong "hardware own needs resources and instances." -}}
{{- end -}}

{{- $own := keys (include "slipway.selectorLabels" (dict "root" $ "component" "endpoint") | fromYaml) -}}
{{- range $label := keys (.Values.podLabels | default dict) | sortAlpha -}}
{{- if has $label $own -}}
{{- $wrong = append $wrong (printf "podLabels can't have %s: the chart selects its pods by it." $label) -}}
{{- end -}}
{{- end -}}

{{- $jwt := .Values.auth.jwt -}}
{{- $tokens := or $jwt.existingSecret $jwt.existingConfigMap -}}
{{- if not (or .Values.auth.apiKeys.existingSecret $tokens) -}}
{{- $wrong = append $wrong "auth.apiKeys.existingSecret, auth.jwt.existingSecret or auth.jwt.existingConfigMap is needed: an endpoint that others can reach is never without credentials." -}}
{{- end -}}
{{- if and $jwt.existingSecret $jwt.existingConfigMap -}}
{{- $wrong = append $wrong "auth.jwt.existingSecret and auth.jwt.existingConfigMap: give one." -}}
{{- end -}}
{{- if and $tokens (or (not $jwt.issuer) (not $jwt.audiences)) -}}
{{- $wrong = append $wrong "auth.jwt needs issuer and audiences, or tokens for other services would be accepted." -}}
{{- end -}}
{{- if and .Values.auth.externalSecret.enabled (or (not .Values.auth.apiKeys.existingSecret) (not .Values.auth.externalSecret.storeName) (not .Values.auth.externalSecret.remoteKey)) -}}
{{- $wrong = append $wrong "auth.externalSecret needs storeName and remoteKey, and auth.apiKeys.existingSecret for the secret to make." -}}
{{- end -}}

{{- if and (eq .Values.tls.type "secret") (not .Values.tls.secretName) -}}
{{- $wrong = append $wrong "tls.secretName is needed for tls.type secret." -}}
{{- end -}}
{{- if and (eq .Values.tls.type "certManager") (not .Values.tls.certManager.issuerName) -}}
{{- $wrong = append $wrong "tls.certManager.issuerName is needed for tls.type certManager." -}}
{{- end -}}
{{- if and .Values.tls.clientCaSecret (eq .Values.tls.type "none") -}}
{{- $wrong = append $wrong "tls.clientCaSecret needs tls.type secret or certManager." -}}
{{- end -}}

{{- $scaling := .Values.autoscaling -}}
{{- if ne $scaling.type "none" -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- $wrong = append $wrong (printf "autoscaling.minReplicas %d is more than maxReplicas %d." (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq (int $scaling.minReplicas) 0) (or (ne $scaling.type "keda") (not $scaling.keda.activationQuery)) -}}
{{- $wrong = append $wrong "autoscaling.minReplicas 0 needs autoscaling.type keda and keda.activationQuery: with no pod there is no metric of its own to start from." -}}
{{- end -}}
{{- range $direction, $rules := $scaling.behavior -}}
{{- if and (hasKey ($rules | default dict) "tolerance") (semverCompare "<1.33.0-0" $kube) -}}
{{- $wrong = append $wrong (printf "autoscaling.behavior.%s.tolerance needs Kubernetes 1.33 (feature gate HPAConfigurableTolerance, on since 1.35); this is %s." $direction $kube) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $scaling.type "keda") (not $scaling.keda.prometheus) -}}
{{- $wrong = append $wrong "autoscaling.keda.prometheus is needed for autoscaling.type keda." -}}
{{- end -}}
{{- if and $scaling.targets.busyInstances (ne (include "slipway.layout" .) "fused") -}}
{{- $wrong = append $wrong "autoscaling.targets.busyInstances needs serve.layout fused: in an ensemble nobody counts the encoder's batches. Use inFlight, queueMs or gpuDuty." -}}
{{- end -}}
{{- $instances := (include "slipway.hardware" . | fromYaml).instances -}}
{{- if and $instances (gt (float64 ($scaling.targets.busyInstances | default 0)) (float64 $instances)) -}}
{{- $wrong = append $wrong (printf "autoscaling.targets.busyInstances %v is more than the %v instances of a replica: it would never be reached." $scaling.targets.busyInstances $instances) -}}
{{- end -}}
{{- if and $scaling.targets.gpuDuty (ne (include "slipway.hardware" . | fromYaml).modelConfig "gpu") -}}
{{- $wrong = append $wrong "autoscaling.targets.gpuDuty needs a GPU." -}}
{{- end -}}
{{- if and $scaling.targets.gpuDuty (hasPrefix "mig-" .Values.hardware) -}}
{{- $wrong = append $wrong "autoscaling.targets.gpuDuty needs a whole GPU: the duty of a slice is not measured." -}}
{{- end -}}
{{- end -}}

{{- if and (ne .Values.expose "none") (not .Values.hostnames) -}}
{{- $wrong = append $wrong (printf "hostnames is needed for expose %s." .Values.expose) -}}
{{- end -}}
{{- if and (eq .Values.expose "gateway") (not .Values.gateway.name) -}}
{{- $wrong = append $wrong "gateway.name is needed for expose gateway." -}}
{{- end -}}
{{- range $grpc := .Values.gateway.grpcHostnames -}}
{{- range $http := $.Values.hostnames -}}
{{- if or (eq $grpc $http) (and (hasPrefix "*" $http) (hasSuffix (trimPrefix "*" $http) $grpc)) (and (hasPrefix "*" $grpc) (hasSuffix (trimPrefix "*" $grpc) $http)) -}}
{{- $wrong = append $wrong (printf "gateway.grpcHostnames: %s is among hostnames (%s), and a gateway takes an HTTPRoute or a GRPCRoute for a name, not both." $grpc $http) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.gateway.canary.weight (or (ne .Values.expose "gateway") (not .Values.gateway.canary.service)) -}}
{{- $wrong = append $wrong "gateway.canary.weight needs expose gateway and gateway.canary.service." -}}
{{- end -}}

{{- if and (eq .Values.engineCache.type "claim") (not .Values.engineCache.claimName) -}}
{{- $wrong = append $wrong "engineCache.claimName is needed for engineCache.type claim." -}}
{{- end -}}
{{- if and .Values.capture.rate (not .Values.capture.claimName) -}}
{{- $wrong = append $wrong "capture.claimName is needed for capture.rate: texts are not kept where nobody said they may be." -}}
{{- end -}}

{{- $load := .Values.loadtest -}}
{{- if or $load.enabled $load.capacity.enabled -}}
{{- if not $load.existingSecret -}}
{{- $wrong = append $wrong "loadtest.existingSecret is needed: the endpoint lets nobody in without an API key or a token." -}}
{{- end -}}
{{- if and .Values.tls.clientCaSecret (not $load.tls.clientSecret) -}}
{{- $wrong = append $wrong "loadtest.tls.clientSecret is needed: callers must show a certificate (tls.clientCaSecret)." -}}
{{- end -}}
{{- end -}}
{{- if and $load.capacity.enabled (not $load.resultsClaim) -}}
{{- $wrong = append $wrong "loadtest.resultsClaim is needed for loadtest.capacity: a capacity that nobody can look up is measured for nothing." -}}
{{- end -}}

{{- if $wrong -}}
{{- fail (printf "\n\nThese values don't fit together:\n  - %s\n" (join "\n  - " $wrong)) -}}
{{- end -}}
{{- end -}}
