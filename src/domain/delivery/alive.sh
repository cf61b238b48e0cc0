# Succeeds while process $1 is the one that started at $2; `sshjob_group` is then its process group. A number alone says
# nothing: it may be another process's by now. Its name may hold anything, and so is taken off to its last end.
sshjob_alive() {
  sshjob_stat=;
  [ -n "$1" ] && while read -r sshjob_line; do sshjob_stat=$sshjob_stat$sshjob_line; done <"/proc/$1/stat" || return 1;
  sshjob_born=$2;
  set -- ${sshjob_stat##*") "};
  sshjob_group=$3;
  case $1 in Z | X) return 1;; esac;
  [ "${20}" = "$sshjob_born" ];
};
