{{/* Every name is fixed: one installation a cluster, in one namespace, which pods and nodes know it by. */}}
{{- define "outrigger.check" -}}
{{- if ne .Release.Namespace "outrigger-system" -}}
{{- fail (printf "Outrigger is installed in the namespace outrigger-system, and not in %s: add --namespace outrigger-system" .Release.Namespace) -}}
{{- end -}}
{{- if and (eq .Values.injection.by "policy") (semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "injection.by: policy needs Kubernetes 1.36 or later, and this is %s: set injection.by=webhook" .Capabilities.KubeVersion.Version) -}}
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

{{/* Where the agent answers /metrics and probes, or nothing. */}}
{{- define "outrigger.agentStatus" -}}
{{- if eq .Values.agent.status "" -}}
{{- if .Values.metrics.podMonitor.enabled }}[::]:15021{{ end -}}
{{- else if ne .Values.agent.status "none" -}}
{{ .Values.agent.status }}
{{- end -}}
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

{{/* What a sidecar is made of: the only copy of it that people and control read. */}}
{{- define "outrigger.profile" -}}
image: {{ include "outrigger.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
mode: {{ .Values.proxy.mode }}
attach: {{ .Values.injection.attach }}
hostPaths:
  cgroup: {{ .Values.agent.hostPaths.cgroup }}
  bpf: {{ .Values.agent.hostPaths.bpf }}
trustDomain: {{ .Values.trustDomain }}
systemNamespace: {{ .Release.Namespace }}
refresh: {{ .Values.proxy.refresh }}
resources:
  cpu: {{ .Values.proxy.resources.cpu }}
  memory: {{ .Values.proxy.resources.memory }}
  memoryLimit: {{ .Values.proxy.resources.memoryLimit }}
  guaranteedCpu: {{ .Values.proxy.resources.guaranteedCpu }}
identity: {{ include "outrigger.identity" . }}
{{- end -}}

{{/* By what sidecars get their certificates. */}}
{{- define "outrigger.identity" -}}
{{- ternary "pod-certificates" "token" .Values.podCertificates.enabled -}}
{{- end -}}

{{/* As `kubectl outrigger inject` makes it. */}}
{{- define "outrigger.profileDigest" -}}
{{- $resources := .Values.proxy.resources -}}
{{- $words := list .Chart.AppVersion (include "outrigger.image" .) .Values.image.pullPolicy .Values.proxy.mode .Values.injection.attach .Values.agent.hostPaths.cgroup .Values.agent.hostPaths.bpf .Values.trustDomain .Release.Namespace .Values.proxy.refresh $resources.cpu $resources.memory $resources.memoryLimit $resources.guaranteedCpu (include "outrigger.identity" .) -}}
{{- join "|" $words | sha256sum | trunc 16 -}}
{{- end -}}
