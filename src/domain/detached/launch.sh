# The supervisor is nobody's child, leads a session of its own, and receives the rest by itself: whatever becomes of this
# channel once all has been sent, it goes on. It alone holds what is still to come.
(setsid /bin/sh -c "$sshjob_facts$sshjob_supervisor" sshjob-supervisor "$sshjob_token" <&3 3<&- 2>&1 &) | sshjob_hear
exit
