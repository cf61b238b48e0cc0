# Lets sudo work on the machine that this runs on, as its root: with a PAM service that knows no terminal, and where the
# real root's files are nobody's here, as in an ordinary user's namespace, with copies of sudo and its plugins.
printf '%s\n' 'auth required pam_unix.so' 'account required pam_unix.so' 'session required pam_permit.so' >/etc/pam.d/sudo
rm -f /etc/sudo.conf
sudo=$(command -v sudo)
sudo=$(readlink -f "$sudo")
if [ "$(stat -c %u "$sudo")" != 0 ]; then
  for place in "$sudo" /usr/libexec/sudo /usr/lib/sudo; do
    [ -e "$place" ] || continue
    mkdir -p /run/sudo-copy
    cp -R "$place" "/run/sudo-copy/$(basename "$(dirname "$place")")-$(basename "$place")"
  done
  chmod 4755 /run/sudo-copy/bin-sudo
  mount --bind /run/sudo-copy/bin-sudo "$sudo"
  for place in libexec lib; do
    [ ! -e "/run/sudo-copy/$place-sudo" ] || mount --bind "/run/sudo-copy/$place-sudo" "/usr/$place/sudo"
  done
fi
