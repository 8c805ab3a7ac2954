#!/bin/sh
# check-isa-symbols.sh <build folder>...
#
# Every symbol that the objects of native/isa/ offer to the linker must name its own vector type, or be its table of
# kernels. Anything else is code that other objects have too, compiled here with flags of an instruction set: the linker
# keeps one copy of such a function, and may keep the one that crashes on older machines. It cannot be seen in a build that
# runs where it was made.
#
# An extension's object must also hold the instructions that it is there for, in their own encoding, and no other's.
#
# NM names the nm to use (aarch64-linux-gnu-nm for a cross build); objdump is the one beside it.
set -u
nm=${NM:-nm}
[ $# -ge 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
bad=0
for folder in "$@"; do
  found=0
  for isa in scalar avx2 avx2vnni avx512 avx512vnni neon neondotprod neoni8mm; do
    object=$(find "$folder" -name "$isa.cc.o" -o -name "$isa.cc.obj" | head -n 1)
    [ -n "$object" ] || continue
    found=$((found + 1))
    # How the vector type is called, also in names that nm cannot read (lambdas of lambdas), and the object's table. The
    # extensions' objects hold products of bytes only.
    products=
    case $isa in
      scalar) type=Scalar mangled=4simd6ScalarE table=kScalar ;;
      avx2) type='Avx2Of<false>' mangled=4simd6Avx2OfILb0EEE table=kAvx2 ;;
      avx2vnni) type='Avx2Of<true>' mangled=4simd6Avx2OfILb1EEE table=kAvx2VnniBytes products='{vex} vpdpbusd' ;;
      avx512) type='Avx512Of<false>' mangled=4simd8Avx512OfILb0EEE table=kAvx512 ;;
      avx512vnni) type='Avx512Of<true>' mangled=4simd8Avx512OfILb1EEE table=kAvx512VnniBytes products=vpdpbusd ;;
      neon) type='NeonOf<false, false>' mangled=4simd6NeonOfILb0ELb0EEE table=kNeon ;;
      neondotprod) type='NeonOf<true, false>' mangled=4simd6NeonOfILb1ELb0EEE table=kNeonDotProdBytes products=sdot ;;
      neoni8mm) type='NeonOf<true, true>' mangled=4simd6NeonOfILb1ELb1EEE table=kNeonI8mmBytes products='sdot usmmla' ;;
    esac
    symbols=$("$nm" -C --defined-only --extern-only "$object") || { bad=1; continue; }
    # The table itself must be there: an empty or foreign object has nothing to complain about, either.
    if ! printf '%s\n' "$symbols" | grep -q " hqq::kernels::$table\$"; then
      echo "$object: has no table hqq::kernels::$table"
      bad=1
    fi
    others=$(printf '%s\n' "$symbols" | grep -v -e "hqq::simd::$type" -e " W _Z.*$mangled" | grep -v " hqq::kernels::$table\$")
    if [ -n "$others" ]; then
      printf '%s: offers the linker what does not belong to %s:\n%s\n' "$object" "$isa" "$others"
      bad=1
    fi
    code=$("${nm%nm}objdump" -d "$object") || { bad=1; continue; }
    got=$(printf '%s\n' "$code" | grep -oE '(\{[a-z]+\} )?\bvpdpbusd\b|\b(sdot|usmmla)\b' | sort -u | paste -sd ' ')
    if [ "$got" != "$products" ]; then
      echo "$object: expected its integer products to use \"$products\", got \"$got\""
      bad=1
    fi
  done
  if [ "$found" -lt 2 ]; then
    echo "$folder: has objects of $found instruction sets; at least two were expected"
    bad=1
  fi
done
exit $bad
