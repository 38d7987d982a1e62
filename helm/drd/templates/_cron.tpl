{{/* A cron line of drd as Kubernetes takes it, moved by a job's own share of the jitter.

     In: list of the line, its path in the values, jitter ("" for none) and the job's name.
     The share is what the daemon uses: the first 48 bits of the name's SHA-256. Moved are: an hour and minute, into
     the next day where every day is meant; the minute of an every-hour line, around the hour; of other lines the
     minutes, as far as the hour lasts. `drd plan --kubernetes` does the same; a test compares them. */}}
{{- define "drd.cron" -}}
{{- $path := index . 1 -}}
{{- $short := dict "@hourly" "0 * * * *" "@daily" "0 0 * * *" "@midnight" "0 0 * * *" "@weekly" "0 0 * * 0" "@monthly" "0 0 1 * *" "@yearly" "0 0 1 1 *" "@annually" "0 0 1 1 *" -}}
{{- $line := index . 0 | trim | lower -}}
{{- $fields := default $line (get $short $line) | splitList " " | compact -}}
{{- if ne (len $fields) 5 -}}
{{- fail (printf "%s.cron: five fields (minute hour day month weekday), or @hourly, @daily, @weekly, @monthly" $path) -}}
{{- end -}}
{{- $minute := index $fields 0 -}}
{{- $hour := index $fields 1 -}}
{{- $day := index $fields 2 -}}
{{- $month := index $fields 3 -}}
{{- $weekday := index $fields 4 -}}
{{- if contains "7" $weekday -}}
{{- fail (printf "%s.cron: Kubernetes does not know 7 as a weekday; write 0 or sun" $path) -}}
{{- end -}}
{{- if index . 2 -}}
{{- $jitter := div (include "drd.seconds" (index . 2) | int64) 60 -}}
{{- $by := div (mul $jitter (printf "0x%s" (index . 3 | sha256sum | substr 0 12) | int64)) 281474976710656 -}}
{{- $minutes := include "drd.cronNumbers" $minute | splitList " " | compact -}}
{{- $last := index $minutes (sub (len $minutes) 1 | int) | int64 -}}
{{- $everyDay := and (eq $day "*") (eq $month "*") (eq $weekday "*") -}}
{{- $single := eq (len $minutes) 1 -}}
{{- if and $single $everyDay (eq $hour "*") -}}
{{- $minute = mod (add $last $by) 60 | toString -}}
{{- else if and $single (regexMatch "^[0-9]+$" $hour) -}}
{{- $at := add (mul 60 (int64 (atoi $hour))) $last $by -}}
{{- $at = $everyDay | ternary (mod $at 1440) (min $at 1439) -}}
{{- $minute = mod $at 60 | toString -}}
{{- $hour = div $at 60 | toString -}}
{{- else -}}
{{- $by = min $by (sub 59 $last) -}}
{{- if $by -}}
{{- $moved := list -}}
{{- range $minutes -}}{{- $moved = append $moved (add (int64 .) $by | toString) -}}{{- end -}}
{{- $minute = join "," $moved -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- list $minute $hour $day $month $weekday | join " " -}}
{{- end }}

{{/* The minutes of a field, ascending. */}}
{{- define "drd.cronNumbers" -}}
{{- $found := dict -}}
{{- range splitList "," . -}}
{{- $step := regexFind "/[0-9]+$" . | trimPrefix "/" -}}
{{- $range := regexReplaceAll "/[0-9]+$" . "" | replace "*" "0-59" -}}
{{- $low := regexFind "^[0-9]+" $range | atoi -}}
{{- $high := $low -}}
{{- if contains "-" $range -}}{{- $high = regexFind "[0-9]+$" $range | atoi -}}{{- else if $step -}}{{- $high = 59 -}}{{- end -}}
{{- range untilStep $low (add $high 1 | int) (default "1" $step | atoi) -}}{{- $_ := set $found (printf "%02d" .) "" -}}{{- end -}}
{{- end -}}
{{- range keys $found | sortAlpha }} {{ trimPrefix "0" . | default "0" }}{{- end -}}
{{- end }}

{{/* A CronJob's name: what of, in characters that Kubernetes takes, at most 52. In: the words of it. */}}
{{- define "drd.cronName" -}}
{{- $full := join "-" . -}}
{{- $name := regexReplaceAll "[^a-z0-9-]+" $full "-" | trimSuffix "-" -}}
{{- if or (ne $name $full) (gt (len $name) 52) -}}
{{- printf "%s-%s" (trunc 45 $name | trimSuffix "-") ($full | sha256sum | trunc 6) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end }}

{{/* After how many seconds a job is ended by force, as in the daemon. In: config, the schedule, and the sources. */}}
{{- define "drd.deadline" -}}
{{- $config := index . 0 -}}
{{- $schedule := index . 1 -}}
{{- $longest := 21600 -}}
{{- if $schedule.deadline -}}
{{- $longest = include "drd.seconds" $schedule.deadline | int64 -}}
{{- else if eq (default "backup" $schedule.do) "backup" -}}
{{- $longest = 0 -}}
{{- range index . 2 -}}
{{- $source := get (default dict $config.sources) . | default dict -}}
{{- $longest = max $longest (add 600 (include "drd.seconds" (default "6h" $source.deadline) | int64)) -}}
{{- end -}}
{{- end -}}
{{- $longest -}}
{{- end }}

{{/* Everything that CronJobs are made from, as JSON: a list of {name, kind, timing, path, job, args, deadline}. */}}
{{- define "drd.cronJobs" -}}
{{- $root := . -}}
{{- $config := .Values.config -}}
{{- $prefix := include "drd.fullname" . -}}
{{- $out := list -}}
{{- range $name, $schedule := $config.schedules -}}
{{- $path := printf "config.schedules.%s" $name -}}
{{- $do := default "backup" $schedule.do -}}
{{- $options := dict "backup" (list "backup" "now" "--kind" (default "auto" $schedule.kind)) "prune" (list "prune" "--apply") "verify" (list "verify" "--sample" (default "5%" $schedule.sample)) -}}
{{- $sources := default (keys (default dict $config.sources) | sortAlpha) $schedule.sources | uniq -}}
{{- if $root.Values.cronjob.perSource -}}
{{- range $sources -}}
{{- $out = append $out (dict "name" (include "drd.cronName" (list $prefix $do $name .)) "kind" $do "timing" $schedule "path" $path "job" (printf "%s/%s/%s" $do $name .) "args" (append (get $options $do) .) "deadline" (include "drd.deadline" (list $config $schedule (list .)) | int64)) -}}
{{- end -}}
{{- else -}}
{{- $out = append $out (dict "name" (include "drd.cronName" (list $prefix $do $name)) "kind" $do "timing" $schedule "path" $path "job" (printf "%s/%s" $do $name) "args" (concat (get $options $do) $sources) "deadline" (include "drd.deadline" (list $config $schedule $sources) | int64)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $drill := $config.drills -}}
{{- if or $drill.cron $drill.interval -}}
{{- $runs := mul (max 1 (len (default (keys (default dict $config.sources)) $drill.sources))) (len (default (list "latest") $drill.select)) -}}
{{- $deadline := add 600 (mul $runs (include "drd.seconds" (dig "budgets" "time" "1h" $drill) | int64)) -}}
{{- $out = append $out (dict "name" (include "drd.cronName" (list $prefix "drill" $name)) "kind" "drill" "timing" $drill "path" (printf "config.drills.%s" $name) "job" (printf "drill/%s" $name) "args" (list "drill" "now" $name) "deadline" $deadline) -}}
{{- end -}}
{{- end -}}
{{- toJson $out -}}
{{- end }}
