{{- define "fastsse.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "fastsse.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fastsse.labels" -}}
{{ include "fastsse.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* "many" if there can be more than one pod. */}}
{{- define "fastsse.many" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}many{{ end }}
{{- end }}

{{/* A duration such as "10s" or "1m" in seconds. */}}
{{- define "fastsse.seconds" -}}
{{- $text := toString . }}
{{- if hasSuffix "ms" $text }}{{ divf (float64 (trimSuffix "ms" $text)) 1000 | ceil | int }}
{{- else if hasSuffix "m" $text }}{{ mulf (float64 (trimSuffix "m" $text)) 60 | ceil | int }}
{{- else if hasSuffix "h" $text }}{{ mulf (float64 (trimSuffix "h" $text)) 3600 | ceil | int }}
{{- else }}{{ float64 (trimSuffix "s" $text) | ceil | int }}{{ end }}
{{- end }}

{{/* A value in TOML. JSON is TOML for text, whole numbers, booleans and lists of them. */}}
{{- define "fastsse.toml" -}}
{{- if kindIs "float64" . }}{{ if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else }}{{ toJson . }}{{ end }}
{{- end }}

{{- define "fastsse.check" -}}
{{- $store := toString (.Values.config.store | default "memory") }}
{{- if and (include "fastsse.many" .) (not .Values.existingSecret) (not (hasPrefix "redis" $store)) }}
{{- fail "more than one pod needs a Redis: set config.store, or FASTSSE_STORE in existingSecret" }}
{{- end }}
{{- if and .Values.persistence.enabled (include "fastsse.many" .) }}
{{- fail "persistence is for one pod: a file has one writer" }}
{{- end }}
{{- if and (hasPrefix "sqlite:" $store) (not .Values.persistence.enabled) }}
{{- fail "config.store is a file: set persistence.enabled, or it ends with the pod" }}
{{- end }}
{{- range $name := list "host" "port" "admin_port" "uds" "fd" "pidfile" }}
{{- if hasKey $.Values.config $name }}{{ fail (printf "config.%s is set by the chart" $name) }}{{ end }}
{{- end }}
{{- end }}
