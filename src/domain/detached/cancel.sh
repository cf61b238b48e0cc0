# Ends attempt $1, of run $2 on instance $3, number $4; then tells who of it is still there.
sshjob_cancel() {
  echo "$sshjob_token look $1"
  if ! sshjob_enter "$1"; then
    sshjob_leader=
  else
    read -r sshjob_rest sshjob_pid sshjob_since sshjob_at_boot sshjob_rest <self
    read -r sshjob_boot </proc/sys/kernel/random/boot_id
    sshjob_tries=50
    # A program that is about to start, and to lead its group, is waited for.
    while read -r sshjob_leader sshjob_led sshjob_rest <leader && sshjob_starts "$sshjob_leader" "$sshjob_led" &&
      [ "$sshjob_tries" -gt 0 ] && sshjob_alive "$sshjob_pid" "$sshjob_since"; do sshjob_nap; done
    if [ "$sshjob_boot" = "$sshjob_at_boot" ] && sshjob_alive "$sshjob_leader" "$sshjob_led"; then
      if [ "$sshjob_group" = "$sshjob_leader" ]; then sshjob_whole=-$sshjob_leader; else sshjob_whole=$sshjob_leader; fi
      # By when it was asked: where this is cut, whoever looks goes on.
      read -r sshjob_now sshjob_rest </proc/uptime
      [ -r status ] || echo "cancelled $sshjob_now " 1<>why
      sshjob_stop "$sshjob_whole"
      # Its supervisor has the last word.
      sshjob_tries=25
      while [ ! -r status ] && [ "$sshjob_tries" -gt 0 ] && sshjob_alive "$sshjob_pid" "$sshjob_since"; do sshjob_nap; done
      # What was killed takes a moment to be gone, and survives nothing.
      sshjob_tries=5
      while [ "$sshjob_tries" -gt 0 ] && kill -0 "$sshjob_whole"; do sshjob_nap; done
      echo "$sshjob_token signalled"
    else
      echo "$sshjob_token over"
    fi
  fi
  # The number of a group that is gone may be another one's.
  if [ -z "$sshjob_leader" ] || [ "$sshjob_boot" != "$sshjob_at_boot" ]; then
    sshjob_leader=-
  elif [ -d "/proc/$sshjob_leader" ] && ! sshjob_alive "$sshjob_leader" "$sshjob_led"; then
    sshjob_leader=-
  fi
  sshjob_survivors "$sshjob_leader" "$2" "$3" "$4"
}

sshjob_starts() {
  [ -n "$1" ] || return 0
  sshjob_alive "$1" "$2" && [ "$sshjob_group" != "$1" ]
}

# Tells of every process in group $1, or whose environment is readable and carries this attempt.
sshjob_survivors() {
  sshjob_marked=
  sshjob_scanned=yes
  echo x | grep -qz x || sshjob_scanned=no
  sshjob_marked=$(grep -lszxF "SSHJOB_RUN_ID=$2" /proc/[0-9]*/environ)
  [ -z "$sshjob_marked" ] || sshjob_marked=$(grep -lszxF "SSHJOB_INSTANCE=$3" $sshjob_marked)
  [ -z "$sshjob_marked" ] || sshjob_marked=$(grep -lszxF "SSHJOB_ATTEMPT=$4" $sshjob_marked)
  sshjob_leader=$1 sshjob_found=0
  for sshjob_process in /proc/[0-9]*; do
    sshjob_stat=
    [ ! -r "$sshjob_process/stat" ] || read -r sshjob_stat <"$sshjob_process/stat"
    set -- ${sshjob_stat##*") "}
    case $1 in Z | X | '') continue ;; esac
    case " $3 $sshjob_marked " in
      " $sshjob_leader "*) ;;
      *"$sshjob_process/environ"*) ;;
      *) continue ;;
    esac
    sshjob_found=$((sshjob_found + 1))
    [ "$sshjob_found" -le 64 ] || continue
    sshjob_name=
    read -r sshjob_name <"$sshjob_process/comm"
    echo "$sshjob_token survivor ${sshjob_process#/proc/} $sshjob_name"
  done
  echo "$sshjob_token survivors $sshjob_found $sshjob_scanned"
}

exec 3>&2 2>/dev/null </dev/null
echo "$sshjob_token start" >&3
echo "$sshjob_token start"
