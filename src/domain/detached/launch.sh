# "$1" is this text, so that a process list shows first whose process it is; "$2" loads the supervisor (`load.sh`), and knows
# what "$3" and "$4" are; "$5" is the token.
#
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
sshjob_parent=$$ sshjob_session=$$; eval "$2";
elif command -v setsid >/dev/null; then
exec setsid /bin/sh -c "sshjob_parent=$$ sshjob_session= sshjob_stat=; $2" "$0" "" "" "$3" "$4" "$5";
else echo "$5 error tool setsid" >&2; exit 126; fi
);
exit
