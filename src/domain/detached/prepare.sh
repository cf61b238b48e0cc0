# Runs in a session of its own. What ends it must not be an answer that nobody hears, nor a goodbye of the login.
trap : HUP INT TERM PIPE
# Old kernels do not tell.
[ -n "$sshjob_mask" ] || sshjob_mask=$(umask)
umask 077
for sshjob_tool in dd mkdir mv setsid sleep; do
  command -v "$sshjob_tool" >/dev/null || sshjob_refuse tool "$sshjob_tool"
done
[ "$sshjob_length" = 0 ] || sshjob_job=$(dd bs="$sshjob_length" count=1 iflag=fullblock 2>/dev/null)
case $sshjob_job in "#$sshjob_token"*"#$sshjob_token") ;; *) sshjob_refuse cut ;; esac
# Where the job has variables of its own it may be that they change where programs are looked for.
sshjob_setsid=setsid
[ -z "$sshjob_env" ] || sshjob_setsid=$(command -v setsid)

# A text that a shell gives itself comes by a pipe, in most of them, and costs no program to make. The other end of it is
# opened when all is prepared.
sshjob_fifos=
if [ -p /proc/self/fd/5 ] 5<<end 2>/dev/null; then
-
end
  exec 5<<end 7<<end 8<<end
-
end
-
end
-
end
  read -r sshjob_rest <&5
  read -r sshjob_rest <&7
  read -r sshjob_rest <&8
else
  command -v mkfifo >/dev/null || sshjob_refuse tool mkfifo
  sshjob_fifos=yes
fi

# Who we are, before anybody can ask. Time is counted since boot: no clock that is set can touch it.
read -r sshjob_boot </proc/sys/kernel/random/boot_id
read -r sshjob_host </proc/sys/kernel/hostname
read -r sshjob_up sshjob_rest </proc/uptime
[ -n "$sshjob_stat" ] || read -r sshjob_stat </proc/self/stat
sshjob_pid=${sshjob_stat%% *}
set -- ${sshjob_stat#*") "}
if [ -z "${20}" ] || [ -z "$sshjob_up" ] || [ -z "$sshjob_boot" ]; then sshjob_refuse tool /proc; fi
sshjob_self="$sshjob_token $sshjob_pid ${20} $sshjob_boot $sshjob_up $sshjob_limit $sshjob_max $sshjob_keep $sshjob_host"

# Where somebody waits for the answer, as for that of a unit, who waits says the rest.
sshjob_answer() {
  [ -z "$sshjob_parent" ] || { echo "$sshjob_token start" >&2; echo "$sshjob_token start"; }
  echo "$sshjob_token $1"
}
sshjob_attach() {
  sshjob_answer attached
  exit 0
}
! sshjob_find "$sshjob_at" || sshjob_attach

# All that will ever have to be written once it is claimed has its room from the beginning: the disk may be full by then.
# A shell reads byte by byte: the line that says nothing yet is short.
sshjob_blank='
                                                                              '
sshjob_prepare() {
  # Of two that share a home and are the first in it, one makes it.
  [ -d "$sshjob_root" ] || mkdir "$sshjob_root" || [ -d "$sshjob_root" ] || return 1
  sshjob_sound "$sshjob_root" && mkdir -p "$sshjob_dir" || return 1
  [ -z "$sshjob_fifos" ] || mkfifo "$sshjob_dir/stdout" "$sshjob_dir/stderr" "$sshjob_dir/said" || return 1
  for sshjob_file in leader pumps why beat out.rest err.rest status.new; do
    echo "$sshjob_blank" >"$sshjob_dir/$sshjob_file" || return 1
  done
  true >"$sshjob_dir/out" && true >"$sshjob_dir/err" || return 1
  [ "$sshjob_bytes" = 0 ] || sshjob_store >"$sshjob_dir/script" || return 1
  echo "$sshjob_self" >"$sshjob_dir/self"
}
sshjob_clear() {
  rm -rf "$@"
  rmdir "$sshjob_root/$sshjob_at" "$sshjob_root/${sshjob_at%/*}" "$sshjob_root/${sshjob_at%%/*}"
} 2>/dev/null
for sshjob_root in "$sshjob_home" "$sshjob_spare"; do
  [ -n "$sshjob_root" ] || continue
  sshjob_dir=$sshjob_root/$sshjob_at/$sshjob_token
  if sshjob_prepare 2>/dev/null; then break; fi
  [ ! -d "$sshjob_dir" ] || sshjob_clear "$sshjob_dir"
  sshjob_dir=
done
[ -n "$sshjob_dir" ] || sshjob_refuse space
trap 'sshjob_clear "$sshjob_dir"' EXIT
