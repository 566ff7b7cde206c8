{{/* The artifact that is served, wherever it comes from: mounted read-only, or fetched by an init container. */}}

{{- define "slipway.model.path" -}}
{{- if eq .Values.model.source.type "baked" -}}
{{- .Values.model.path -}}
{{- else if eq .Values.model.source.type "objectStore" -}}
/models/artifact
{{- else -}}
{{- printf "/models/%s" (.Values.model.path | default "") | trimSuffix "/" -}}
{{- end -}}
{{- end -}}

{{- define "slipway.model.volumeMounts" -}}
{{- if ne .Values.model.source.type "baked" -}}
- name: model
  mountPath: /models
  readOnly: true
{{- end -}}
{{- end -}}

{{- define "slipway.model.volumes" -}}
{{- with .Values.model.source -}}
{{- if eq .type "image" -}}
- name: model
  image:
    reference: {{ .image.reference | quote }}
    pullPolicy: {{ .image.pullPolicy }}
{{- else if eq .type "claim" -}}
- name: model
  persistentVolumeClaim:
    claimName: {{ .claim.name | quote }}
    readOnly: true
{{- else if eq .type "objectStore" -}}
- name: model
  emptyDir:
    sizeLimit: {{ printf "%dMi" (int $.Values.scratchMiB) }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fetches the artifact by the digest of its manifest; every file is checked. */}}
{{- define "slipway.model.initContainers" -}}
{{- if eq .Values.model.source.type "objectStore" -}}
{{- $store := .Values.model.source.objectStore -}}
- name: fetch
  image: {{ include "slipway.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [fetch, {{ $store.url | quote }}, /models/artifact, --digest, {{ .Values.model.digest | quote }}]
  {{- with $store.env }}
  env:
    {{- range $name, $value := . }}
    - name: {{ $name | quote }}
      {{- /* A large number, such as an account's, comes as a float. */}}
      value: {{ (and (kindIs "float64" $value) (eq $value (floor $value)) | ternary (printf "%.0f" $value) ($value | toString)) | quote }}
    {{- end }}
  {{- end }}
  {{- with $store.existingSecret }}
  envFrom:
    - secretRef:
        name: {{ . | quote }}
  {{- end }}
  securityContext:
    {{- include "slipway.securityContext" . | nindent 4 }}
  resources:
    requests: {cpu: 100m, memory: 128Mi}
    limits: {cpu: "1", memory: 256Mi}
  volumeMounts:
    - name: model
      mountPath: /models
    - name: tmp
      mountPath: /tmp
{{- end -}}
{{- end -}}

{{/* Port of the store: the endpoint's if it names one, else what the scheme stands for. */}}
{{- define "slipway.storePort" -}}
{{- $store := .Values.model.source.objectStore -}}
{{- include "slipway.port" (ternary (get $store.env "AWS_ENDPOINT" | default "https://store") $store.url (hasPrefix "s3" $store.url)) -}}
{{- end -}}
