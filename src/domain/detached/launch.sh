# The supervisor is a child that leaves: whatever becomes of this channel once all has been sent, it goes on. With `&` it,
# and so the program, would ignore SIGINT and SIGQUIT for ever: instead its parent waits for it, and is ended by it when it
# has got away. Its session is to be nobody else's: one that the server has made for this command alone, with no terminal,
# will do, and costs no program. So does OpenSSH, which leaves that session alone when the channel ends; from a server that
# kills what is in it, the program would still get away, with its end unknown.
(
read -r sshjob_stat </proc/self/stat;
# ksh forks only where it must, as to change a limit.
# shellcheck disable=SC3045
case ${sshjob_stat%% *} in "$$") ulimit -S -c "$(ulimit -S -c)"; read -r sshjob_stat </proc/self/stat;; esac;
sshjob_alone() { [ "$4 $5" = "$$ 0" ]; };
if sshjob_alone ${sshjob_stat#*") "}; then
sshjob_parent=$$ sshjob_session=$$; eval "$1";
elif command -v setsid >/dev/null; then
exec setsid /bin/sh -c "sshjob_parent=$$ sshjob_session= sshjob_stat=; $1" "$0" "" "$2" "$3" "$4";
else echo "$4 error tool setsid" >&2; exit 126; fi
);
exit
