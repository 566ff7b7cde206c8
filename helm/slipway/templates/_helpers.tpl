{{/* Names, labels, and what `hardware` says where a value is null. */}}

{{/*
A release may have dots in its name, a Service may not. The chart is called slipway, or by its alias in a chart that has it several
times (`dependencies`), and then each is an endpoint of its own.
*/}}
{{- define "slipway.fullname" -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- $chart := .Chart.Name | kebabcase | replace "_" "-" -}}
{{- if not (contains $chart $release) -}}
{{- $release = printf "%s-%s" $release $chart -}}
{{- end -}}
{{- if gt (len $release) 52 -}}
{{- $release = printf "%s-%s" ($release | trunc 43 | trimAll "-") (sha256sum $release | trunc 8) -}}
{{- end -}}
{{- $release -}}
{{- end -}}

{{/* What Deployments select by: never changes over a release's life. `slipway.selectorLabels` (dict "root" $ "component" "endpoint"). */}}
{{- define "slipway.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "slipway.labels" -}}
{{ include "slipway.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The same with `more`, which goes before them. (dict "root" $ "component" "endpoint" "more" LABELS) */}}
{{- define "slipway.labelsAnd" -}}
{{- toYaml (mergeOverwrite (include "slipway.labels" . | fromYaml) .more) -}}
{{- end -}}

{{/* The settings of `hardware`, each replaced by the value of its name if that is not null; YAML, for fromYaml. */}}
{{- define "slipway.hardware" -}}
{{- $kinds := .Files.Get "hardware.yaml" | fromYaml -}}
{{- $mig := hasPrefix "mig-" .Values.hardware -}}
{{- $found := deepCopy (index $kinds (ternary "mig" .Values.hardware $mig)) -}}
{{- if $mig -}}
{{- $device := dict (printf "nvidia.com/%s" .Values.hardware) 1 -}}
{{- $_ := set $found "resources" (dict "requests" (merge (dict) $device $found.resources.requests) "limits" (merge (dict) $device $found.resources.limits)) -}}
{{- end -}}
{{- range $key := list "resources" "nodeSelector" "tolerations" "runtimeClassName" "modelConfig" "instances" "affinity" -}}
{{- $own := index $.Values $key -}}
{{- if not (kindIs "invalid" $own) -}}
{{- $_ := set $found $key $own -}}
{{- end -}}
{{- end -}}
{{- if and $found.products (kindIs "invalid" $found.affinity) -}}
{{- $term := dict "matchExpressions" (list (dict "key" "nvidia.com/gpu.product" "operator" "In" "values" $found.products)) -}}
{{- $_ := set $found "affinity" (dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" (list $term)))) -}}
{{- end -}}
{{- if not (kindIs "invalid" .Values.image.repository) -}}
{{- $_ := set $found "image" .Values.image.repository -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/* Instances of the model in a replica. */}}
{{- define "slipway.instances" -}}
{{- (include "slipway.hardware" . | fromYaml).instances -}}
{{- end -}}

{{/* repository[:tag][@digest]; (dict "repository" "tag" "digest"). */}}
{{- define "slipway.imageReference" -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository .tag -}}
{{- end -}}
{{- end -}}

{{- define "slipway.image" -}}
{{- $repository := (include "slipway.hardware" . | fromYaml).image -}}
{{- include "slipway.imageReference" (dict "repository" $repository "tag" (.Values.image.tag | default .Chart.AppVersion) "digest" .Values.image.digest) -}}
{{- end -}}

{{- define "slipway.serviceAccountName" -}}
{{- .Values.serviceAccountName | default (include "slipway.fullname" .) -}}
{{- end -}}

{{/* The restricted Pod Security Standard. */}}
{{- define "slipway.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "slipway.securityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "slipway.tlsSecret" -}}
{{- .Values.tls.secretName | default (printf "%s-tls" (include "slipway.fullname" .)) -}}
{{- end -}}

{{/*
What the secrets that the pods mount hold now, so that an upgrade after a change rolls them. Where no cluster can be
asked (helm template, GitOps), only their names count. Keys and certificates are read again without that.
*/}}
{{- define "slipway.secretsChecksum" -}}
{{- $found := dict -}}
{{- $names := list .Values.auth.apiKeys.existingSecret .Values.auth.jwt.existingSecret .Values.tls.clientCaSecret .Values.model.source.objectStore.existingSecret -}}
{{- if ne .Values.tls.type "none" -}}
{{- $names = append $names (include "slipway.tlsSecret" .) -}}
{{- end -}}
{{- range $name := compact $names -}}
{{- $secret := lookup "v1" "Secret" $.Release.Namespace $name | default dict -}}
{{- $_ := set $found $name (get $secret "data" | default dict) -}}
{{- end -}}
{{- toJson $found | sha256sum -}}
{{- end -}}

{{/* Port of a URL. */}}
{{- define "slipway.port" -}}
{{- $parsed := urlParse . -}}
{{- regexFind ":[0-9]+$" $parsed.host | trimPrefix ":" | default (ternary "80" "443" (eq $parsed.scheme "http")) -}}
{{- end -}}
