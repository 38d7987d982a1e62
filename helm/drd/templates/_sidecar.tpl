{{/* For charts that have drd as a dependency with mode: sidecar. Hand them drd's own scope:

       containers:
         - {{- include "drd.sidecar.container" .Subcharts.drd | nindent 10 }}
       volumes:
         {{- include "drd.sidecar.volumes" .Subcharts.drd | nindent 8 }}
     and, in the pod's metadata, so that a new configuration restarts the pod:
       annotations:
         {{- include "drd.sidecar.annotations" .Subcharts.drd | nindent 8 }}

     The pod needs fsGroup (10001 where nothing speaks against it), so that drd may write to its volumes, and
     terminationGracePeriodSeconds of at least what drd.sidecar.grace gives. */}}

{{- define "drd.sidecar.container" -}}
{{- include "drd.container" (list . .Values.sidecar.name (list "daemon")) -}}
{{- include "drd.probes" . -}}
{{- end }}

{{- define "drd.sidecar.volumes" -}}
{{- include "drd.volumes" . -}}
{{- end }}

{{- define "drd.sidecar.annotations" -}}
checksum/drd-config: {{ printf "%s%s" (toJson .Values.config) (toJson .Values.suites) | sha256sum }}
{{- end }}

{{- define "drd.sidecar.grace" -}}
{{- include "drd.grace" . -}}
{{- end }}
