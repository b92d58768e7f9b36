{{/* Every name is fixed: one installation a cluster, in one namespace, which pods and nodes know it by. */}}
{{- define "outrigger.check" -}}
{{- if ne .Release.Namespace "outrigger-system" -}}
{{- fail (printf "Outrigger is installed in the namespace outrigger-system, and not in %s: add --namespace outrigger-system" .Release.Namespace) -}}
{{- end -}}
{{- end -}}

{{- define "outrigger.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Of an object of the part that is given as `component`. */}}
{{- define "outrigger.labels" -}}
{{ include "outrigger.selector" . }}
app.kubernetes.io/part-of: outrigger
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "outrigger.selector" -}}
app.kubernetes.io/name: outrigger
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* What both kinds of pod say in the same way. */}}
{{- define "outrigger.log" -}}
- name: OUTRIGGER_LOG
  value: {{ .Values.log.level | quote }}
- name: OUTRIGGER_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
{{- end -}}

{{- define "outrigger.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}
