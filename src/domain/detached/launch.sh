# The supervisor is nobody's child, leads a session of its own, and receives the rest by itself: whatever becomes of this
# channel once all has been sent, it goes on. It alone holds what is still to come. With `&` it, and so the program, would
# ignore SIGINT and SIGQUIT for ever: instead its parent waits for it, and is ended when it has got away.
{
  read -r sshjob_parent sshjob_rest </proc/self/stat
  echo "$sshjob_parent"
  sshjob_job=$sshjob_job sshjob_text=$sshjob_text setsid /bin/sh -c "$sshjob_facts$sshjob_supervisor" sshjob-supervisor "$sshjob_token" <&3 3<&- 2>&1
  exit
} | {
  exec 3<&-
  read -r sshjob_parent
  sshjob_hear
}
exit
