{{/* What trying again cannot mend: a wrong configuration (2), no such backup (10), damage (20), a failed drill (21).
     Kubernetes 1.25 needs a feature gate for the field, and wants the empty list; without the gate it drops it all. */}}
{{- define "drd.failurePolicy" -}}
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
    - action: FailJob
      onExitCodes: {containerName: drd, operator: In, values: [2, 10, 20, 21]}
      onPodConditions: []
{{- end }}
