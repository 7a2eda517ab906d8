{{- define "twilio-edge.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that select the sidecar's pods. They never change, because the selector of a Deployment is immutable. */}}
{{- define "twilio-edge.selector" -}}
app.kubernetes.io/name: twilio-edge
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: sidecar
{{- end -}}

{{/* Labels of all resources. Helm adds its own label. */}}
{{- define "twilio-edge.labels" -}}
app.kubernetes.io/part-of: twilio-edge
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{/* Labels of the parts beside the sidecar. Their name differs, so that policies of the sidecar do not select them. (dict "root" $ "part" "redis") */}}
{{- define "twilio-edge.part" -}}
app.kubernetes.io/name: twilio-edge-{{ .part }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "twilio-edge.image" -}}
{{- with .Values.image -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "twilio-edge.account" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "twilio-edge.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end -}}
{{- end -}}

{{/* A pod under the restricted Pod Security Standard. (dict "user" 65532) */}}
{{- define "twilio-edge.pod-security" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ default .user .group }}
fsGroup: {{ default .user .group }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "twilio-edge.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Variables with the file names of the secrets, so that no manifest and no environment contains a secret. */}}
{{- define "twilio-edge.stores-env" -}}
- { name: DATABASE_URL_FILE, value: /etc/twilio-edge/secrets/database-url }
{{- if or .Values.redis.enabled .Values.secret.keys.redisUrl }}
- { name: REDIS_URL_FILE, value: /etc/twilio-edge/secrets/redis-url }
{{- end }}
{{- end -}}

{{/*
One volume of what is in Secrets: all a sidecar reads, or with `only` the database's URL. A volume of files and not of
subPaths: a rotation reaches the pod. (dict "root" $ "only" true)
*/}}
{{- define "twilio-edge.secrets-volume" -}}
{{- $values := .root.Values -}}
{{- $keys := $values.secret.keys -}}
{{- $name := include "twilio-edge.name" .root -}}
{{- $ours := list -}}
{{- $read := dict "databaseUrl" "database-url" -}}
{{- if not .only -}}
{{- $read = dict "databaseUrl" "database-url" "redisUrl" "redis-url" "token" "edge-token" "accounts" "accounts.toml" "sinks" "sinks.toml" "sending" "sending.toml" "email" "email.toml" "redactionHashKey" "redaction-hash-key" -}}
{{- end -}}
{{- if $values.postgresql.enabled -}}{{- $read = omit $read "databaseUrl" -}}{{- end -}}
{{- if $values.redis.enabled -}}{{- $read = omit $read "redisUrl" -}}{{- end -}}
{{- range $key, $path := $read -}}
{{- with get $keys $key -}}{{- $ours = append $ours (dict "key" . "path" $path) -}}{{- end -}}
{{- end -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- if $ours }}
      - secret:
          name: {{ $values.secret.existing }}
          items:
            {{- range $ours }}
            - { key: {{ .key }}, path: {{ .path }} }
            {{- end }}
      {{- end }}
      {{- if $values.postgresql.enabled }}
      - secret:
          name: {{ $values.postgresql.existing | default (printf "%s-postgresql" $name) }}
          items:
            - { key: database-url, path: database-url }
      {{- end }}
      {{- if and $values.redis.enabled (not .only) }}
      - secret:
          name: {{ $values.redis.existing | default (printf "%s-redis" $name) }}
          items:
            - { key: redis-url, path: redis-url }
      {{- end }}
{{- end -}}
