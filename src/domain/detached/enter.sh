# Goes where attempt $1 is; where that cannot be, tells what is known.
sshjob_enter() {
  sshjob_unowned=
  if sshjob_find "$1" && sshjob_owned "$1" && cd "$sshjob_dir" && [ -r self ]; then return 0; fi
  if [ -z "$sshjob_unowned" ] && sshjob_sees; then echo "$sshjob_token vanished"; else echo "$sshjob_token unseen"; fi
  return 1
}

# Whether attempt $1, which was found, says whose it is. One that does not is about to, or its owner was killed right then
# and never ran: as long as anybody lives who may be it, nothing is known.
sshjob_owned() {
  [ -z "$sshjob_owner" ] || return 0
  sleep 1
  if sshjob_find "$1" && [ -n "$sshjob_owner" ]; then return 0; fi
  for sshjob_self in "$sshjob_dir"*/self; do
    sshjob_pid=
    [ ! -r "$sshjob_self" ] || read -r sshjob_rest sshjob_pid sshjob_since sshjob_rest <"$sshjob_self"
    ! sshjob_alive "$sshjob_pid" "$sshjob_since" || sshjob_unowned=yes
  done
  return 1
}

# Whether what was not found is not there: a home that is not mounted, or closed, hides what it holds.
sshjob_sees() {
  [ -z "$sshjob_home" ] || [ -x "$HOME/." ] || return 1
  for sshjob_root in "$sshjob_home" "$sshjob_spare"; do
    [ ! -d "$sshjob_root" ] || [ -x "$sshjob_root" ] || return 1
  done
}
