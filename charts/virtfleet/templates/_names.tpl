{{/* Labels of every object; `virtfleet.labels` takes (list . "component"), an empty component for what is both's. */}}
{{- define "virtfleet.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: virtfleet
{{ include "virtfleet.selector" . }}
{{- end }}

{{/* Labels that never change: selectors cannot. */}}
{{- define "virtfleet.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* repository[:tag][@digest] of (list . image) */}}
{{- define "virtfleet.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Both binaries' probes. */}}
{{- define "virtfleet.probes" -}}
# Ten seconds without an answer on /livez, three times: nothing runs in it any more.
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  timeoutSeconds: 10
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
{{- end }}
