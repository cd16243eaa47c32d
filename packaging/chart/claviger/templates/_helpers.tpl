{{- define "claviger.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "claviger.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "claviger.selector" -}}
app.kubernetes.io/name: {{ include "claviger.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "claviger.labels" -}}
{{ include "claviger.selector" . }}
app.kubernetes.io/component: {{ ternary "key-manager" "key-server" .Values.kms.enabled }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* What only the Service of the single pods has, so that Prometheus sees each pod once. */}}
{{- define "claviger.pods" -}}
claviger/service: pods
{{- end -}}

{{- define "claviger.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "v%s" .Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{- define "claviger.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "claviger.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "claviger.tlsSecret" -}}
{{ .Values.tls.existingSecret | default (printf "%s-tls" (include "claviger.fullname" .)) }}
{{- end -}}

{{- define "claviger.claim" -}}
{{ .Values.persistence.existingClaim | default (printf "%s-keys" (include "claviger.fullname" .)) }}
{{- end -}}

{{- define "claviger.endpoint" -}}
{{ include "claviger.fullname" . }}.{{ .Release.Namespace }}.svc:7373
{{- end -}}

{{/* Whether several key managers share their data, each with a copy of its own. */}}
{{- define "claviger.isCluster" -}}
{{- if and .Values.kms.enabled .Values.kms.config.cluster -}}yes{{- end -}}
{{- end -}}

{{- define "claviger.replicas" -}}
{{- if and .Values.kms.enabled (not (include "claviger.isCluster" .)) -}}1{{- else -}}{{ int .Values.replicaCount }}{{- end -}}
{{- end -}}

{{- define "claviger.data" -}}
{{ ternary "/var/lib/claviger-kms" "/var/lib/claviger" .Values.kms.enabled }}
{{- end -}}

{{- define "claviger.hasData" -}}
{{- if or .Values.kms.enabled .Values.persistence.enabled .Values.persistence.existingClaim -}}yes{{- end -}}
{{- end -}}

{{/* The config of a key server: JSON, which is YAML, and in which a large number stays one. */}}
{{- define "claviger.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $tls := dict "key" "/etc/claviger/tls.key" "cert" "/etc/claviger/tls.crt" -}}
{{- $ready := dict "/v1/ready" (dict "skip_auth" true) -}}
{{- $defaults := dict "address" "0.0.0.0:7373" "tls" $tls "api" $ready -}}
{{- mergeOverwrite $defaults $config | toPrettyJson -}}
{{- end -}}

{{/* The config of a key manager. */}}
{{- define "claviger.kmsConfig" -}}
{{- $config := deepCopy .Values.kms.config -}}
{{- $certificate := dict "key" "/etc/claviger/tls.key" "cert" "/etc/claviger/tls.crt" -}}
{{- mergeOverwrite (dict "version" "v1" "tls" (dict "certs" (list $certificate))) $config | toPrettyJson -}}
{{- end -}}

{{/* What cannot work is said before anything is installed, by the name of the value. */}}
{{- define "claviger.validate" -}}
{{- if and (not .Values.tls.existingSecret) (not .Values.tls.certManager.enabled) -}}
{{- fail "no certificate: set tls.existingSecret to a Secret of the type kubernetes.io/tls, or tls.certManager.enabled and tls.certManager.issuerRef" -}}
{{- end -}}
{{- if and .Values.tls.existingSecret .Values.tls.certManager.enabled -}}
{{- fail "two certificates: set tls.existingSecret or tls.certManager.enabled, not both" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) -}}
{{- fail "no issuer: set tls.certManager.issuerRef.name, and its kind" -}}
{{- end -}}
{{- if .Values.kms.enabled -}}
{{- include "claviger.validateKms" . -}}
{{- else -}}
{{- include "claviger.validateServer" . -}}
{{- end -}}
{{- with .Values.metrics.serviceMonitor -}}
{{- if and .enabled (not .clientSecret) (not (dig "/v1/metrics" "skip_auth" false (dig "api" dict $.Values.config))) -}}
{{- fail "Prometheus has no identity: set metrics.serviceMonitor.clientSecret, or config.api./v1/metrics.skip_auth to true" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "claviger.validateKms" -}}
{{- if and (not .Values.kms.hsmSecret.name) (not .Values.kms.config.hsm) -}}
{{- fail "nothing seals the data: set kms.hsmSecret.name to a Secret with an HSM key, or kms.config.hsm" -}}
{{- end -}}
{{- if or .Values.config .Values.existingConfigSecret -}}
{{- fail "config and existingConfigSecret are for a key server: with kms.enabled set kms.config" -}}
{{- end -}}
{{- if and (include "claviger.isCluster" .) .Values.kms.host -}}
{{- fail "kms.host would be the same for all: with kms.config.cluster each server is reached by the name of its pod" -}}
{{- end -}}
{{- if and (include "claviger.isCluster" .) .Values.persistence.existingClaim -}}
{{- fail "persistence.existingClaim is one volume: with kms.config.cluster each server has a volume of its own" -}}
{{- end -}}
{{- end -}}

{{- define "claviger.validateServer" -}}
{{- if and (not .Values.config) (not .Values.existingConfigSecret) -}}
{{- fail "no config: set config, or existingConfigSecret to a Secret with the key server-config.yaml" -}}
{{- end -}}
{{- if and .Values.config .Values.existingConfigSecret -}}
{{- fail "two configs: set config or existingConfigSecret, not both" -}}
{{- end -}}
{{- if .Values.config -}}
{{- if not (dig "admin" "identity" "" .Values.config) -}}
{{- fail "no administrator: set config.admin.identity to an identity, or to disabled" -}}
{{- end -}}
{{- if not .Values.config.keystore -}}
{{- fail "no key store: set config.keystore" -}}
{{- end -}}
{{- $path := dig "keystore" "fs" "path" "" .Values.config -}}
{{- if and (hasKey .Values.config.keystore "fs") (not .Values.extraVolumeMounts) -}}
{{- if not (include "claviger.hasData" .) -}}
{{- fail "config.keystore.fs would lose its keys with the pod: set persistence.enabled" -}}
{{- end -}}
{{- if not (or (eq $path "/var/lib/claviger") (hasPrefix "/var/lib/claviger/" $path)) -}}
{{- fail "config.keystore.fs.path must lie on the volume: set it to /var/lib/claviger/keys" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (include "claviger.hasData" .) (gt (int .Values.replicaCount) 1) (ne .Values.persistence.accessMode "ReadWriteMany") -}}
{{- fail "several servers cannot share this volume: set replicaCount to 1, or persistence.accessMode to ReadWriteMany" -}}
{{- end -}}
{{- end -}}
