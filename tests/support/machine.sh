# Makes the mount namespace that this runs in a machine of its own, and becomes its sshd. All that it writes is in
# memory and goes with the namespace, but for its disk. $1: the folder that holds sshd_config, host_key, authorized_keys, setup.sh and,
# where the machine has one, its disk.
set -eu
mount -t tmpfs -o mode=755 machine /run
mkdir /run/sshd
cp -R "$1" /run/machine
# What is to be there again when it is started anew.
[ ! -d "$1/disk" ] || mount --bind "$1/disk" /run/machine/disk
# What an ordinary user cannot read is not needed, or is written below.
cp -a /etc /run/etc 2>/dev/null || :
cp /run/machine/host_key /run/host_key
chmod 600 /run/host_key
mount --bind /run/etc /etc
for place in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 machine "$place"; done
# /var/log: sshd notes who logs in, and who fails to.
for place in /home /var/log; do mount -t tmpfs -o mode=755 machine "$place"; done

# Nobody of the real machine's is here but those whom sshd needs.
printf '%s\n' 'root:x:0:0::/root:/bin/sh' 'sshd:x:102:65534::/run/sshd:/usr/sbin/nologin' >/etc/passwd
printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >/etc/group
printf '%s\n' 'root:*:19000:0:99999:7:::' 'sshd:*:19000:0:99999:7:::' >/etc/shadow
chmod 600 /etc/shadow
rm -rf /etc/nologin /etc/motd /etc/update-motd.d /etc/ssh/sshrc /etc/profile.d
cat >/etc/pam.d/sshd <<'PAM'
auth required pam_unix.so
account required pam_nologin.so
account required pam_unix.so
session required pam_permit.so
session optional pam_motd.so motd=/etc/motd
PAM

next=60000
# user NAME SHELL [FIELDS]: FIELDS are those of shadow(5) after the name; by default there is no password, and nothing
# expires.
user() {
  next=$((next + 1))
  echo "$1:x:$next:$next::/home/$1:$2" >>/etc/passwd
  echo "$1:x:$next:" >>/etc/group
  echo "$1:${3-*:19000:0:99999:7:::}" >>/etc/shadow
  mkdir "/home/$1"
  chown "$next:$next" "/home/$1"
}

. /run/machine/setup.sh
exec "$2" -D -e -f /run/machine/sshd_config
