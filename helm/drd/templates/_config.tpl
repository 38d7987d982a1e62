{{/* What the chart reads out of config. */}}

{{- define "drd.listen" -}}
{{- dig "daemon" "listen" "127.0.0.1:8088" .Values.config -}}
{{- end }}

{{- define "drd.port" -}}
{{- $listen := include "drd.listen" . -}}
{{- if not (hasPrefix "unix:" $listen) -}}{{- regexFind "[0-9]+$" $listen -}}{{- end -}}
{{- end }}

{{/* "yes" where the daemon can be reached at the pod's address. */}}
{{- define "drd.reachable" -}}
{{- $listen := include "drd.listen" . -}}
{{- if not (regexMatch "^(unix:|127\\.|localhost:|\\[::1\\])" $listen) -}}yes{{- end -}}
{{- end }}

{{- define "drd.scheme" -}}
{{- if dig "daemon" "tls" "" .Values.config -}}HTTPS{{- else -}}HTTP{{- end -}}
{{- end }}

{{/* A duration as drd writes it, such as 1h30m, in whole seconds. */}}
{{- define "drd.seconds" -}}
{{- $units := dict "d" 86400 "h" 3600 "m" 60 "s" 1 -}}
{{- $total := 0.0 -}}
{{- range regexFindAll "[0-9.]+[dhms]" . -1 -}}
{{- $total = addf $total (mulf (regexFind "[0-9.]+" . | float64) (get $units (regexFind "[dhms]" .))) -}}
{{- end -}}
{{- ceil $total | int64 -}}
{{- end }}

{{- define "drd.grace" -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{- int64 .Values.terminationGracePeriodSeconds -}}
{{- else -}}
{{- add 60 (include "drd.seconds" (dig "daemon" "grace" "1m" .Values.config) | int64) -}}
{{- end -}}
{{- end }}

{{/* The ports of a URL with one host or several, each on a line. In: list, URL and default port. */}}
{{- define "drd.urlPorts" -}}
{{- $default := index . 1 -}}
{{- $hosts := regexReplaceAll "^[a-z]+://([^/?]*).*$" (index . 0) "${1}" -}}
{{- range regexReplaceAll "^.*@" $hosts "" | splitList "," }}
{{ regexFind ":[0-9]+$" . | trimPrefix ":" | default $default }}
{{- end -}}
{{- end }}

{{/* Ports of a list of lines, each once, as a NetworkPolicy has them. */}}
{{- define "drd.networkPorts" -}}
{{- range splitList "\n" . | compact | uniq | sortAlpha }}
- {port: {{ . }}, protocol: TCP}
{{- end -}}
{{- end }}

{{- define "drd.databasePorts" -}}
{{- range $source := .Values.config.sources -}}
{{- $defaults := dict "postgres" "5432" "redis" "6379" "clickhouse" (hasPrefix "https:" $source.url | ternary "8443" "8123") -}}
{{- $default := get $defaults $source.type -}}
{{- if $source.sentinel_master -}}
{{- $default = "26379" }}
6379
{{- range $source.sentinels }}
{{ regexFind "[0-9]+$" . }}
{{- end -}}
{{- end -}}
{{- include "drd.urlPorts" (list $source.url $default) -}}
{{- end -}}
{{- end }}

{{- define "drd.storePorts" -}}
{{- $store := .Values.config.store | default dict -}}
{{- if eq (toString $store.type) "s3" -}}
{{- $url := $store.endpoint_url | default "https://s3" -}}
{{- include "drd.urlPorts" (list $url (hasPrefix "http:" $url | ternary "80" "443")) -}}
{{- end -}}
{{- end }}

{{- define "drd.alertmanagerPorts" -}}
{{- range dig "alertmanager" "urls" list .Values.config -}}
{{- include "drd.urlPorts" (list . (hasPrefix "http:" . | ternary "80" "443")) -}}
{{- end -}}
{{- end }}

{{/* Variables that tell where a server finds this pod, of each source that opens a way back and names no place.
     drd takes DRD_SOURCES__NAME__… for keys of the configuration, with _ for dash and dot. */}}
{{- define "drd.wayBackEnv" -}}
{{- $host := .Values.gateway.host -}}
{{- range $name, $source := .Values.config.sources -}}
{{- $variable := $name | replace "-" "_" | replace "." "_" | upper -}}
{{- $gateway := and (eq $source.type "clickhouse") (eq (default "gateway" $source.mode) "gateway") -}}
{{- if and $gateway (not (dig "gateway" "listen" "" $source)) }}
- name: DRD_SOURCES__{{ $variable }}__GATEWAY__LISTEN
  value: {{ printf "%s:0" $host | quote }}
{{- end -}}
{{- if and (eq $source.type "redis") (not (dig "holder" "listen" "" $source)) }}
- name: DRD_SOURCES__{{ $variable }}__HOLDER__LISTEN
  value: {{ $host | trimPrefix "[" | trimSuffix "]" | quote }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Where the pods of a drill find this one, which drd itself can see only in its own namespace. */}}
{{- define "drd.drillsEnv" -}}
{{- if and .Values.drills.kubernetes.enabled (not (dig "scratch" "kubernetes" "own_address" "" .Values.config)) -}}
- name: DRD_SCRATCH__KUBERNETES__OWN_ADDRESS
  value: $(POD_IP)
{{- end -}}
{{- end }}

{{/* The ports of that way back: any free one, unless a source names one. */}}
{{- define "drd.wayBackPorts" -}}
{{- $any := false -}}
{{- range .Values.config.sources -}}
{{- if eq .type "redis" -}}
{{- $any = true -}}
{{- else if and (eq .type "clickhouse") (eq (default "gateway" .mode) "gateway") -}}
{{- $port := dig "gateway" "listen" ":0" . | regexFind "[0-9]+$" -}}
{{- if eq $port "0" }}{{ $any = true }}{{ else }}
- {port: {{ $port }}, protocol: TCP}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $any }}
- {port: 32768, endPort: 60999, protocol: TCP}
{{- end -}}
{{- end }}

{{/* The namespace that drills put their pods in. */}}
{{- define "drd.drillsNamespace" -}}
{{- dig "scratch" "kubernetes" "namespace" .Release.Namespace .Values.config -}}
{{- end }}

{{/* The pods of drills, as a peer of a NetworkPolicy. */}}
{{- define "drd.drillPods" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ include "drd.drillsNamespace" . | quote }}}}
podSelector: {matchLabels: {app.kubernetes.io/name: drd-scratch}}
{{- end }}

{{/* The Secret and key of the bearer token as the Prometheus operator wants it. In: root and the monitor's values. */}}
{{- define "drd.monitorAuthorization" -}}
{{- $root := index . 0 -}}
{{- $monitor := index . 1 -}}
{{- $token := dig "daemon" "token" dict $root.Values.config -}}
{{- if $token -}}
{{- $secret := $monitor.tokenSecret -}}
{{- if and (not $secret) $token.env -}}
{{- $single := get $root.Values.secretEnv $token.env -}}
{{- if $single -}}
{{- $secret = dict "name" $single.existingSecret "key" $single.key -}}
{{- else if $root.Values.existingSecret -}}
{{- $secret = dict "name" $root.Values.existingSecret "key" $token.env -}}
{{- end -}}
{{- end -}}
{{- if not $secret -}}
{{- fail "config.daemon.token is asked of Prometheus too: name its Secret by tokenSecret: {name: …, key: …} of the monitor" -}}
{{- end }}
authorization:
  type: Bearer
  credentials:
    {{- toYaml $secret | nindent 4 }}
{{- end -}}
{{- end }}
