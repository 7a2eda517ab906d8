#!/usr/bin/env bash
# stage.sh NAME COMMAND..: runs the command as a stage: prints its name before and its time after. The time is also a line of
# the file that $STAGES names, for a table at the end.
set -uo pipefail

name=$1
shift
printf '\n=== %s\n' "$name"
began=$SECONDS
"$@"
status=$?
line=$(printf '%6d s  %s' $((SECONDS - began)) "$name")
((status == 0)) || line+="  FAILED"
echo "$line"
[[ -z ${STAGES:-} ]] || echo "$line" >>"$STAGES"
exit $status
