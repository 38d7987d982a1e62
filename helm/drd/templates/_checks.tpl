{{/* What the chart refuses, beyond what values.schema.json does. No message repeats a value of config. */}}

{{/* Keys of config whose value is a secret; tests compare them with drd's own models. */}}
{{- define "drd.secretKeys" -}}
access_key_id control_token credentials identity password private_key secret_access_key sentinel_password session_token token
{{- end }}

{{/* Walk over config; fails on a secret in it, gives the variables it names, each on a line. In: path and value. */}}
{{- define "drd.references" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- range $key, $below := $value -}}
{{- $here := printf "%s.%s" $path $key -}}
{{- if has $key (include "drd.secretKeys" $ | splitList " ") -}}
{{- range (kindIs "slice" $below | ternary $below (list $below)) -}}
{{- if and . (not (kindIs "map" .)) -}}
{{- fail (printf "%s: a secret is written in the values, which Helm keeps in the release; put it into a Secret and write {env: NAME} or {file: PATH}" $here) -}}
{{- end -}}
{{- if . }}
{{ default "" .env }}
{{- end -}}
{{- end -}}
{{- else if ne $key "labels" -}}
{{- include "drd.references" (list $here $below) -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- range $value -}}{{- include "drd.references" (list $path .) -}}{{- end -}}
{{- else if kindIs "string" $value -}}
{{- if regexMatch "AGE-SECRET-KEY-|PRIVATE KEY|://[^/@]*:[^/@]*@" $value -}}
{{- fail (printf "%s: a secret is written in the values, which Helm keeps in the release; URLs go without passwords, keys into Secrets" $path) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "drd.checks" -}}
{{- $values := .Values -}}
{{- $config := $values.config -}}
{{- if not $config.store -}}
{{- fail "config.store: required: where backups live, as in drd.yaml: {type: s3, bucket: …}" -}}
{{- end -}}
{{- $given := concat (keys $values.secretEnv) list -}}
{{- range $values.extraEnv -}}{{- $given = append $given .name -}}{{- end -}}
{{- range include "drd.references" (list "config" $config) | splitList "\n" | compact -}}
{{- if not (or $values.existingSecret $values.extraEnvFrom (has . $given)) -}}
{{- fail (printf "config names the variable %s, and nothing gives it: set existingSecret (a Secret with that key), secretEnv or extraEnv" .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $drill := $config.drills -}}
{{- $suite := toString $drill.suite -}}
{{- if and (hasPrefix "suites/" $suite) (not (hasKey $values.suites (trimPrefix "suites/" $suite))) -}}
{{- fail (printf "config.drills.%s.suite: %s is not among the values' suites" $name $suite) -}}
{{- end -}}
{{- end -}}
{{- $daemon := eq $values.mode "daemon" -}}
{{- range $kind := list "spool" "state" -}}
{{- $volume := get $values $kind -}}
{{- if and (eq $volume.type "claim") (not $volume.existingClaim) -}}
{{- if not $daemon -}}
{{- fail (printf "%s.type: claim needs %s.existingClaim in mode %s: its pods would share one claim; emptyDir and ephemeral do not" $kind $kind $values.mode) -}}
{{- end -}}
{{- if gt (int $values.replicaCount) 1 -}}
{{- fail (printf "%s.type: claim cannot be shared by %d pods; use ephemeral" $kind (int $values.replicaCount)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (not $daemon) (or $values.ingress.enabled $values.serviceMonitor.enabled $values.podDisruptionBudget.enabled) -}}
{{- fail (printf "ingress, serviceMonitor and podDisruptionBudget are of mode daemon; mode %s has no Service" $values.mode) -}}
{{- end -}}
{{- if and (eq $values.mode "cronjob") (or $values.podMonitor.enabled $values.prometheusRule.enabled $values.grafanaDashboard.enabled) -}}
{{- fail "podMonitor, prometheusRule and grafanaDashboard need the metrics of a daemon, and mode cronjob has none: watch its Jobs (kube_job_status_failed), or use mode daemon" -}}
{{- end -}}
{{- if and $values.serviceMonitor.enabled $values.podMonitor.enabled -}}
{{- fail "serviceMonitor and podMonitor would scrape every pod twice; enable one" -}}
{{- end -}}
{{- if and (ne $values.mode "cronjob") (not (include "drd.reachable" .)) (or $values.ingress.enabled $values.serviceMonitor.enabled $values.podMonitor.enabled) -}}
{{- fail "config.daemon.listen cannot be reached from outside of the pod; write \"0.0.0.0:8088\"" -}}
{{- end -}}
{{- if $values.ingress.enabled -}}
{{- if not (dig "daemon" "token" "" $config) -}}
{{- fail "ingress: whoever finds it reads names, sizes and reports: set config.daemon.token, such as {env: DRD_TOKEN}" -}}
{{- end -}}
{{- if not (and $values.ingress.host $values.ingress.existingSecret) -}}
{{- fail "ingress: host and existingSecret (of type kubernetes.io/tls) are required" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $values.mode "sidecar") $values.networkPolicy.enabled -}}
{{- fail "networkPolicy is of the modes daemon and cronjob: in mode sidecar the pod, and so its policy, is yours" -}}
{{- end -}}
{{- if and (eq $values.mode "sidecar") $values.podMonitor.enabled (not $values.podMonitor.selector) -}}
{{- fail "podMonitor.selector: required in mode sidecar: labels of the pod that drd is in" -}}
{{- end -}}
{{- end }}
