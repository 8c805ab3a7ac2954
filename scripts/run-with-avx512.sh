#!/bin/bash
# run-with-avx512.sh <static executable> [arguments...] [--and arguments...]...
#
# Runs a statically linked x86-64 Linux program on an emulated machine with AVX-512: Bochs boots Debian's cloud kernel with
# an initramfs that holds the program and a small init. Nothing but Debian packages is used; as root, missing ones are
# installed. Booting takes half a minute, so that `--and` runs the program again, with other arguments, on the same machine.
#
# Output and errors of the program come out here, while it runs. The exit status is that of its first run that failed, or 0;
# 128 + N: killed by signal N; 124: out of time; 125: the emulation itself did not work.
#
# About 40 million instructions a second. The processor is an Ice Lake: AVX-512 F, CD, BW, DQ, VL, and VNNI among others.
# Beware: VCVTPS2PH of Bochs 2.7 rounds ties away from even, at every vector width, where processors round to even.
#
#   HQQ_EMULATOR_CPU      model of Bochs      [corei7_icelake_u]
#   HQQ_EMULATOR_MEMORY   its memory, in MB   [512]
#   HQQ_EMULATOR_TIMEOUT  in seconds          [900]
#   HQQ_EMULATOR_CACHE    where the kernel and the compiled init are kept  [build-core/emulator]
set -euo pipefail

fail() {
  echo "run-with-avx512: $*" >&2
  exit 125
}

[ $# -ge 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 125; }
program=$1
[ -x "$program" ] || fail "$program is not an executable"
[ "$(uname -s) $(uname -m)" = 'Linux x86_64' ] || fail 'the emulator is set up for Linux on x86-64'
root=$(cd "$(dirname "$0")/.." && pwd)
cache=${HQQ_EMULATOR_CACHE:-$root/build-core/emulator}
mkdir -p "$cache"

# ---- what is needed

packages=(bochs bochs-term bochsbios isolinux syslinux-common xorriso cpio gcc libc6-dev binutils)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ] || [ ! -s "$cache/vmlinuz" ]; then
  command -v apt-get >/dev/null || fail 'needs a Debian system, for the emulator and a kernel'
  if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || fail "these packages are missing: ${missing[*]} (apt-get install them, or run as root)"
  fi
  {
    export DEBIAN_FRONTEND=noninteractive
    [ "$(id -u)" != 0 ] || apt-get -qq update
    [ ${#missing[@]} -eq 0 ] || apt-get -qq install -y --no-install-recommends "${missing[@]}"
    if [ ! -s "$cache/vmlinuz" ]; then  # only the kernel's image, and that unpacked, not installed
      kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
      [ -n "$kernel" ] || fail 'apt knows no linux-image-cloud-amd64'
      folder=$(mktemp -d)
      chmod 777 "$folder"  # apt downloads as a user of its own
      (cd "$folder" && apt-get -qq download "$kernel")
      dpkg-deb --fsys-tarfile "$folder"/linux-image-*.deb | tar -x -C "$folder" --wildcards './boot/vmlinuz*'
      mv "$folder"/boot/vmlinuz* "$cache/vmlinuz"
      rm -rf "$folder"
    fi
  } >&2 || fail 'packages could not be had'
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/hqq-avx512.XXXXXX")
emulator=
cleanup() {
  [ -z "$emulator" ] || kill -KILL -- "-$emulator" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# ---- the emulated machine's first process

cat > "$work/init.c" <<'INIT'
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// A parallel port of Bochs is a file of the host: the byte, then a pulse on the strobe line.
static void print(int port, const char* text, long length) {
  for (long i = 0; i < length; i++) {
    outb(text[i], port);
    outb(0x0d, port + 2);
    outb(0x0c, port + 2);
  }
}

static void power_off(void) {
  fflush(stdout);
  usleep(20000);
  for (const char* s = "Shutdown"; *s; s++) outb(*s, 0x8900);  // Bochs ends when this port hears it
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

// Runs the program, and passes on what it writes.
static int run(char** argv) {
  static char buffer[65536];
  static char* const environment[] = {"PATH=/", "HOME=/", "LC_ALL=C", NULL};
  int out[2], err[2], status = 0, open_pipes = 2;
  if (pipe(out) || pipe(err)) return 125;
  const pid_t child = fork();
  if (child == 0) {
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(out[1], 1);
    dup2(err[1], 2);
    for (int fd = 3; fd < 64; fd++) close(fd);
    iopl(0);
    execve("/program", argv, environment);
    dprintf(2, "exec: %s\n", strerror(errno));
    _exit(127);
  }
  close(out[1]);
  close(err[1]);
  struct pollfd pipes[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  while (open_pipes > 0) {
    poll(pipes, 2, -1);
    for (int i = 0; i < 2; i++) {
      if (pipes[i].fd < 0 || pipes[i].revents == 0) continue;
      const long length = read(pipes[i].fd, buffer, sizeof buffer);
      if (length <= 0) {
        close(pipes[i].fd);
        pipes[i].fd = -1;
        open_pipes--;
      } else {
        print(i == 0 ? 0x378 : 0x278, buffer, length);
      }
    }
  }
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(void) {
  static char words[1 << 16], *argv[4096];
  mkdir("/proc", 0755);
  mkdir("/dev", 0755);
  mkdir("/tmp", 0777);
  mount("proc", "/proc", "proc", 0, 0);
  mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
  const int console = open("/dev/console", O_RDWR);
  for (int fd = 0; console >= 0 && fd < 3; fd++) dup2(console, fd);
  if (iopl(3)) printf("iopl: %s\n", strerror(errno));
  const int file = open("/arguments", O_RDONLY);
  const long length = read(file, words, sizeof words - 1);
  int first_failure = 0;
  for (long at = 0; at < length;) {
    int count = 0;
    argv[count++] = "/program";
    for (; at < length && strcmp(words + at, "--and") != 0 && count < 4095; at += strlen(words + at) + 1)
      argv[count++] = words + at;
    if (at < length) at += strlen(words + at) + 1;
    argv[count] = NULL;
    const int status = run(argv);
    if (first_failure == 0) first_failure = status;
  }
  printf("\nEMULATED-EXIT %d\n", first_failure);
  power_off();
}
INIT
init=$cache/init-$(sha256sum < "$work/init.c" | cut -c1-16)
if [ ! -x "$init" ]; then
  gcc -O2 -static -w -march=x86-64 -o "$work/init" "$work/init.c" >&2 || fail 'the init does not compile'
  mv "$work/init" "$init"
fi

# ---- the disk that it boots

mkdir -p "$work/root/dev" "$work/disk"
cp "$init" "$work/root/init"
cp "$program" "$work/root/program"
chmod 755 "$work/root/program"
printf '%s\0' "${@:2}" > "$work/root/arguments"
(cd "$work/root" && find . | cpio -o -H newc -R 0:0 --quiet) > "$work/disk/initrd"
cp "$cache/vmlinuz" /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/disk/"
# clearcpuid: CPUID leaf 0xD of Bochs 2.7 is wrong for PKU and the compacted XSAVE formats, and the kernel would do without
# XSAVE, hence without AVX. This is the kernel's own view: the program asks the processor itself.
options='console=ttyS0,115200 nokaslr mitigations=off tsc=reliable no_timer_check lpj=4000000 panic=-1 audit=0 lsm='
options+=' init_on_alloc=0 clearcpuid=pku,ospke,xsaves,xsavec,rdpid,fsrm'
cat > "$work/disk/isolinux.cfg" <<CONFIG
default linux
prompt 0
timeout 0
label linux
  kernel /vmlinuz
  initrd /initrd
  append $options
CONFIG
xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
  -boot-info-table "$work/disk" > "$work/xorriso.log" 2>&1 || { cat "$work/xorriso.log" >&2; fail 'no boot disk'; }
cat > "$work/bochsrc" <<CONFIG
display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
megs: ${HQQ_EMULATOR_MEMORY:-512}
cpu: model=${HQQ_EMULATOR_CPU:-corei7_icelake_u}, count=1, ips=100000000, reset_on_triple_fault=0
clock: sync=none
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
com1: enabled=1, mode=file, dev=$work/console
parport1: enabled=1, file=$work/out
parport2: enabled=1, file=$work/err
log: $work/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
CONFIG
echo c > "$work/debugger"  # Debian's Bochs has its debugger built in: "continue"

# ---- run

touch "$work/console" "$work/out" "$work/err"
# A session of its own: a group that can be ended as one, and no terminal that the display could disturb.
TERM=vt100 setsid timeout --foreground -s KILL "${HQQ_EMULATOR_TIMEOUT:-900}" \
  bochs-bin -q -f "$work/bochsrc" -rc "$work/debugger" < /dev/null > "$work/bochs.out" 2>&1 &
emulator=$!
tail -c +1 -F -s 0.3 --pid="$emulator" "$work/out" 2>/dev/null &
tails=($!)
tail -c +1 -F -s 0.3 --pid="$emulator" "$work/err" >&2 2>/dev/null &
tails+=($!)
status=0
wait "$emulator" 2>/dev/null || status=$?
emulator=
wait "${tails[@]}" || true
result=$(tr -d '\r' < "$work/console" | sed -n 's/^EMULATED-EXIT \([0-9]*\)$/\1/p' | tail -n 1)
[ -z "$result" ] || exit "$result"
{
  echo "run-with-avx512: no result came back (status of the emulator: $status). The ends of its console and of its log:"
  tail -n 15 "$work/console"
  tail -n 5 "$work/bochs.log"
} >&2
[ "$status" != 137 ] || exit 124
exit 125
