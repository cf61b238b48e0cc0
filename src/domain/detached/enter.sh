# Goes where attempt $1 is; where that cannot be, tells what is known.
sshjob_enter() {
  sshjob_unowned=
  if sshjob_find "$1" && sshjob_owned "$1" && cd "$sshjob_dir" && [ -r self ]; then return 0; fi
  if [ -z "$sshjob_unowned" ] && sshjob_sees; then echo "$sshjob_token vanished"; else echo "$sshjob_token unseen"; fi
  return 1
}

# Finds whose attempt $1 is, which was found, where it does not say so: it is about to, or its owner was killed right then
# and never ran, or a power cut has taken the word. Only an owner gets as far as a program or a status, and nobody survives
# a restart; else, as long as anybody lives who may be it, nothing is known.
sshjob_owned() {
  [ -z "$sshjob_owner" ] || return 0
  sleep 1
  sshjob_find "$1" || return 1
  [ -z "$sshjob_owner" ] || return 0
  read -r sshjob_boot </proc/sys/kernel/random/boot_id
  for sshjob_dir in "$sshjob_dir"[0-9a-f]*; do
    sshjob_pid='' sshjob_state=''
    [ ! -f "$sshjob_dir/self" ] ||
      read -r sshjob_rest sshjob_pid sshjob_since sshjob_at_boot sshjob_rest <"$sshjob_dir/self"
    [ -n "$sshjob_pid" ] || continue
    [ ! -f "$sshjob_dir/leader" ] || read -r sshjob_rest sshjob_rest sshjob_state <"$sshjob_dir/leader"
    [ -z "$sshjob_state" ] && [ ! -r "$sshjob_dir/status" ] && [ "$sshjob_at_boot" = "$sshjob_boot" ] || return 0
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
