# Where attempts live: below the home or, where that cannot be written, in a directory of this user's own.
sshjob_mask=
while read -r sshjob_key sshjob_rest; do
  case $sshjob_key in Umask:) sshjob_mask=$sshjob_rest ;; Uid:) break ;; esac
done </proc/self/status
set -- $sshjob_rest
sshjob_spare=/var/tmp/sshjob-$2 sshjob_home=
case $HOME in /*) sshjob_home=$HOME/.sshjob ;; esac

# Whether root $1 is nobody else's work. In /var/tmp anybody may have made it first.
sshjob_sound() {
  [ -d "$1" ] && [ ! -h "$1" ] && [ -O "$1" ] || return 1
  [ "$1" = "$sshjob_spare" ] || return 0
  case $(ls -ld "$1") in drwx------*) ;; *) return 1 ;; esac
}

# Whether root $1 has attempt $2: somebody has claimed it.
sshjob_has() {
  [ -n "$1" ] && [ -e "$1/$2/owner" ] && sshjob_sound "$1"
}

# Finds attempt $1, wherever it lives.
sshjob_find() {
  for sshjob_root in "$sshjob_home" "$sshjob_spare"; do
    if sshjob_has "$sshjob_root" "$1"; then
      sshjob_owner=
      read -r sshjob_owner <"$sshjob_root/$1/owner"
      # It names what is removed one day: nothing but a token does.
      case $sshjob_owner in *[!0-9a-f]*) sshjob_owner= ;; esac
      sshjob_dir=$sshjob_root/$1/$sshjob_owner
      return 0
    fi
  done
  sshjob_dir=
  return 1
}
