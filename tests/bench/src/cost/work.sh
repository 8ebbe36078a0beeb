# What is measured, inside a step: each piece of work as often as $1 says, the milliseconds of each time printed.
# Runs the same in a RUN step, below PRoot and in a chroot with real mounts.
rounds=$1
cd /tmp

find_six() {
	for i in 1 2 3 4 5 6; do find /usr -size +1 > /tmp/found || return 1; done
}
gcc_ten() {
	for i in 1 2 3 4 5 6 7 8 9 10; do gcc -O1 -o /tmp/prog /cost/prog.c || return 1; done
}
compileall() {
	python3 -m compileall -q -f -o 1 -s / /usr/lib/python3*/json /usr/lib/python3*/email /usr/lib/python3*/asyncio /usr/lib/python3*/xml
}
execs_200() {
	i=0
	while [ $i -lt 200 ]; do /bin/true || return 1; i=$((i + 1)); done
}
tar_three() {
	for i in 1 2 3; do tar -cf - /usr 2> /tmp/tar.err | cat > /dev/null || return 1; done
}
dpkg_install() {
	dpkg --force-unsafe-io -i /cost/debs/*.deb > /tmp/dpkg.out 2>&1 || { cat /tmp/dpkg.out; return 1; }
}
after_dpkg_install() {
	dpkg --force-unsafe-io --purge $(cat /cost/packages) > /tmp/dpkg.out 2>&1
}

round=0
while [ $round -lt "$rounds" ]; do
	round=$((round + 1))
	for work in find_six gcc_ten compileall execs_200 tar_three dpkg_install; do
		start=$(date +%s%N)
		if $work; then
			end=$(date +%s%N)
			echo "cost-of $work $(((end - start) / 1000)) us"
		else
			echo "cost-failed $work"
		fi
		if command -v after_$work > /dev/null; then after_$work; fi
	done
done
