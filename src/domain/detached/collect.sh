# Tells where attempt $1 stands, and of its outputs at most $4 bytes each, from $2 and $3 on.
sshjob_look() {
  echo "$sshjob_token look $1"
  sshjob_enter "$1" || return
  sshjob_from_out=$2 sshjob_from_err=$3 sshjob_most=$4
  read -r sshjob_rest sshjob_pid sshjob_since sshjob_at_boot sshjob_began sshjob_limit sshjob_rest <self
  read -r sshjob_leader sshjob_led sshjob_rest <leader
  read -r sshjob_beat sshjob_before sshjob_rest <beat
  # Whoever is dead by now has written its status or never will: that order, and no other, tells the truth.
  sshjob_supervised=no sshjob_running=no
  ! sshjob_alive "$sshjob_pid" "$sshjob_since" || sshjob_supervised=yes
  ! sshjob_alive "$sshjob_leader" "$sshjob_led" || sshjob_running=yes
  [ "$sshjob_boot" = "$sshjob_at_boot" ] || sshjob_supervised=no sshjob_running=no
  read -r sshjob_why sshjob_asked sshjob_rest <why
  read -r sshjob_now sshjob_rest </proc/uptime
  [ "$sshjob_boot" = "$sshjob_at_boot" ] || sshjob_now=-
  [ "$sshjob_now" = - ] || [ -r status ] || sshjob_hurry
  if [ -r status ]; then
    read -r sshjob_kind sshjob_code sshjob_why sshjob_ended sshjob_after sshjob_rest <status
    echo "$sshjob_token $sshjob_kind $sshjob_code $sshjob_why $sshjob_began $sshjob_ended $sshjob_now" \
      "${sshjob_before:--} $sshjob_after"
  elif [ "$sshjob_boot" != "$sshjob_at_boot" ]; then
    echo "$sshjob_token rebooted"
  elif [ "$sshjob_supervised$sshjob_running" != nono ] || sshjob_stores; then
    echo "$sshjob_token running $sshjob_supervised $sshjob_began ${sshjob_beat:--} $sshjob_now"
  else
    sshjob_count_ooms
    echo "$sshjob_token killed ${sshjob_why:--} ${sshjob_before:--} $sshjob_ooms"
  fi
  # Sizes come after the state: what ended has written all of it.
  sshjob_sizes=$(LC_ALL=C ls -ln out err)
  set -- ${sshjob_sizes##*"$sshjob_newline"}
  sshjob_size=$5
  set -- ${sshjob_sizes%%"$sshjob_newline"*}
  sshjob_piece err "$sshjob_from_err" "$5"
  sshjob_piece out "$sshjob_from_out" "$sshjob_size"
}

# Ends what is beyond its time although its watch, which may have been killed, does not: asks, kills after ten seconds, and
# holds what is there ten seconds later for gone. So it goes on with what a cancel has asked that was cut. It never waits
# itself; another look goes on. A watch has its chance first.
sshjob_hurry() {
  if [ "$sshjob_running" = no ] && [ "$sshjob_supervised" = yes ]; then
    # Who waits for the end of the output is woken by the watch, twice, or by whoever looks.
    [ -z "$sshjob_leader" ] || sshjob_beats || kill -USR1 "$sshjob_pid"
    return 0
  fi
  if [ -z "$sshjob_why" ]; then
    [ "$((${sshjob_now%.*} - ${sshjob_began%.*} - sshjob_limit))" -gt 2 ] || return 0
  else
    sshjob_asked=${sshjob_asked:-$sshjob_now}
    sshjob_asked=$((${sshjob_now%.*} - ${sshjob_asked%.*}))
  fi
  if [ "$sshjob_running" = no ]; then
    # What it leads may outlive it. As long as there is no process of that number the group can be no other, unless it died
    # long ago.
    [ -n "$sshjob_why" ] && [ "$sshjob_asked" -lt 60 ] && [ ! -d "/proc/$sshjob_leader" ] &&
      kill -0 "-$sshjob_leader" || return 0
    sshjob_group=$sshjob_leader sshjob_running=yes
  fi
  if [ "$sshjob_group" = "$sshjob_leader" ]; then sshjob_group=-$sshjob_leader; else sshjob_group=$sshjob_leader; fi
  case $sshjob_why in
    '')
      echo "timed_out $sshjob_now " 1<>why
      kill -TERM "$sshjob_group"
      ;;
    *)
      [ "$sshjob_asked" -lt 12 ] || kill -KILL "$sshjob_group"
      [ "$sshjob_asked" -lt 22 ] || sshjob_supervised=no sshjob_running=no
      ;;
  esac
}

# Whether its watch is there, or was a moment ago: twice the longest time between two beats has not passed.
sshjob_beats() {
  [ -n "$sshjob_beat" ] && [ $((${sshjob_now%.*} - ${sshjob_beat%.*})) -lt 20 ]
}

# Whether output of a program that nobody supervises is still being stored. Something that it left behind may hold the
# pipes for ever: where nothing beats, nothing is on its way any more.
sshjob_stores() {
  sshjob_beats || return 1
  read -r sshjob_out sshjob_out_since sshjob_err sshjob_err_since sshjob_rest <pumps
  # The watch tells at its second beat. Where it was killed before, that is waited for as long as it might be late.
  [ -n "$sshjob_out" ] || return 0
  sshjob_alive "$sshjob_out" "$sshjob_out_since" || sshjob_alive "$sshjob_err" "$sshjob_err_since"
}

# Sends what file $1 of $3 bytes has from $2 on, beginning with the block that $2 lies in: so every `dd` finds it at once.
sshjob_piece() {
  sshjob_length=$(($3 - $2))
  [ "$sshjob_length" -gt 0 ] || sshjob_length=0
  [ "$sshjob_length" -le "$sshjob_most" ] || sshjob_length=$sshjob_most
  sshjob_skip=$(($2 % 4096))
  [ "$sshjob_length" != 0 ] || sshjob_skip=0
  read -r sshjob_beyond sshjob_rest <"$1.rest"
  echo "$sshjob_token $1 $3 ${sshjob_beyond:--} $sshjob_skip $sshjob_length"
  [ "$sshjob_length" = 0 ] ||
    dd bs=4096 skip=$(($2 / 4096)) count=$(((sshjob_skip + sshjob_length + 4095) / 4096)) <"$1" 2>/dev/null |
    head -c $((sshjob_skip + sshjob_length))
  echo
}

# What lives on, and still writes, would fill a file that nobody can find any more: the pump $1 that started at $2 counts
# from now on, and stores nothing.
sshjob_discard() {
  sshjob_alive "$1" "$2" || return 0
  read -r sshjob_rest <"/proc/$1/task/$1/children"
  for sshjob_pid in $sshjob_rest; do
    read -r sshjob_line <"/proc/$sshjob_pid/comm"
    [ "$sshjob_line" != dd ] || kill -TERM "$sshjob_pid"
  done
}

# Removes what is over and whose outcome is kept elsewhere.
sshjob_forget() {
  echo "$sshjob_token look $1"
  if sshjob_find "$1"; then
    read -r sshjob_out sshjob_out_since sshjob_err sshjob_err_since sshjob_rest <"$sshjob_dir/pumps"
    sshjob_discard "$sshjob_out" "$sshjob_out_since"
    sshjob_discard "$sshjob_err" "$sshjob_err_since"
    rm -rf "$sshjob_dir/self" "${sshjob_dir%/*}/owner" "${sshjob_dir%/*}"
    rmdir "$sshjob_root/${1%/*}" "$sshjob_root/${1%%/*}"
  fi
  echo "$sshjob_token vanished"
}

sshjob_newline='
'
read -r sshjob_boot </proc/sys/kernel/random/boot_id
exec 3>&2 2>/dev/null </dev/null
echo "$sshjob_token start" >&3
echo "$sshjob_token start"
