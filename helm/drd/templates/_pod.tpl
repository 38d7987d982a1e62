{{/* Pieces of a pod with drd in it. */}}

{{/* The container, without ports and probes. In: list of root, its name, the list of arguments. */}}
{{- define "drd.container" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
name: {{ index . 1 }}
image: {{ include "drd.image" $root | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: {{ toJson (index . 2) }}
{{- $wayBack := printf "%s\n%s" (include "drd.wayBackEnv" $root) (include "drd.drillsEnv" $root) | trim -}}
{{- if or $values.secretEnv $values.extraEnv $wayBack }}
env:
  {{- range $name, $from := $values.secretEnv }}
  - name: {{ $name }}
    valueFrom: {secretKeyRef: {name: {{ $from.existingSecret | quote }}, key: {{ $from.key | quote }}}}
  {{- end }}
  {{- with $wayBack }}
  - name: POD_IP
    valueFrom: {fieldRef: {fieldPath: status.podIP}}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- if or $values.existingSecret $values.extraEnvFrom }}
envFrom:
  {{- with $values.existingSecret }}
  - secretRef: {name: {{ . | quote }}}
  {{- end }}
  {{- with $values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
volumeMounts:
  - {name: drd-config, mountPath: /etc/drd/drd.yaml, subPath: drd.yaml, readOnly: true}
  {{- if $values.suites }}
  - {name: drd-suites, mountPath: /etc/drd/suites, readOnly: true}
  {{- end }}
  - {name: drd-spool, mountPath: /var/spool/drd}
  - {name: drd-state, mountPath: /var/lib/drd}
  {{- range $number, $files := $values.secretFiles }}
  - {name: drd-secret-{{ $number }}, mountPath: {{ $files.mountPath | quote }}, readOnly: true}
  {{- end }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Port and probes of a container that runs the daemon. A daemon that only its pod reaches is asked from within. */}}
{{- define "drd.probes" -}}
{{- $values := .Values -}}
{{- if include "drd.reachable" . }}
ports:
  - {name: drd-http, containerPort: {{ include "drd.port" . }}, protocol: TCP}
{{- end }}
{{- range $name, $path := dict "startupProbe" "/healthz" "livenessProbe" "/healthz" "readinessProbe" "/readyz" }}
{{- if or (include "drd.reachable" $) (ne $name "readinessProbe") }}
{{ $name }}:
  {{- if include "drd.reachable" $ }}
  httpGet: {path: {{ $path }}, port: drd-http, scheme: {{ include "drd.scheme" $ }}}
  {{- else }}
  exec: {command: [python, -m, drd.cli.health, {{ include "drd.listen" $ | quote }}]}
  {{- end }}
  {{- toYaml (get $values $name) | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The volumes that the container mounts. */}}
{{- define "drd.volumes" -}}
{{- $root := . -}}
- name: drd-config
  configMap: {name: {{ include "drd.fullname" . }}-config}
{{- if .Values.suites }}
- name: drd-suites
  configMap: {name: {{ include "drd.fullname" . }}-suites}
{{- end }}
{{- range $kind := list "spool" "state" }}
{{- $volume := get $root.Values $kind }}
- name: drd-{{ $kind }}
  {{- if eq $volume.type "emptyDir" }}
  emptyDir:
    sizeLimit: {{ $volume.size }}
    {{- with $volume.medium }}
    medium: {{ . }}
    {{- end }}
  {{- else if eq $volume.type "ephemeral" }}
  ephemeral:
    volumeClaimTemplate:
      metadata:
        labels:
          {{- include "drd.selectorLabels" $root | nindent 10 }}
      spec:
        {{- include "drd.claim" $volume | nindent 8 }}
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-%s" (include "drd.fullname" $root) $kind) $volume.existingClaim }}
  {{- end }}
{{- end }}
{{- range $number, $files := .Values.secretFiles }}
- name: drd-secret-{{ $number }}
  secret:
    secretName: {{ $files.existingSecret | quote }}
    defaultMode: 0440
    {{- with $files.items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "drd.claim" -}}
accessModes: {{ toJson .accessModes }}
{{- with .storageClassName }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}

{{/* Metadata of a pod. In: root and its component. */}}
{{- define "drd.podMetadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "drd.selectorLabels" $root | nindent 2 }}
  app.kubernetes.io/component: {{ index . 1 }}
  {{- with $root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/config: {{ printf "%s%s" (toJson $root.Values.config) (toJson $root.Values.suites) | sha256sum }}
  {{- with $root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* What a pod has beside its containers and volumes. */}}
{{- define "drd.podPlace" -}}
serviceAccountName: {{ include "drd.serviceAccountName" . }}
automountServiceAccountToken: {{ .Values.drills.kubernetes.enabled }}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
