# The supervisor is nobody's child, leads a session of its own, and receives the rest by itself: whatever becomes of this
# channel once all has been sent, it goes on. It alone holds what is still to come; what it answers is all we wait for.
command -v setsid >/dev/null || sshjob_refuse tool setsid
exec 3<&0 </dev/null
(setsid /bin/sh -c "$sshjob_facts$sshjob_supervisor" sshjob-supervisor "$sshjob_token" <&3 3<&- 2>&1 &) | {
  while read -r sshjob_line; do
    case $sshjob_line in
      "$sshjob_token error program "*) echo "$sshjob_line" >&2; exit 127 ;;
      "$sshjob_token error "*) echo "$sshjob_line" >&2; exit 126 ;;
      "$sshjob_token "*)
        echo "$sshjob_token start" >&2
        echo "$sshjob_token start"
        echo "$sshjob_line"
        exit 0
        ;;
    esac
  done
  sshjob_dir=
  sshjob_refuse supervisor
}
exit
