# The guest of `streamsave demo`: a kernel that knows whether its memory survived.
#
# It is entered by QEMU's multiboot loader (-kernel, no disk) in 32-bit protected mode, interrupts off, and stays there:
# no paging, no interrupts, no BIOS. It writes a pattern into all of its RAM above its own pages, prints "up", and then for
# ever reads all of it back and prints "tick N memory ok" on the first serial port, or "DAMAGED at ADDRESS" once and stops.
#
# A page's number decides what it holds, so that the mix compresses as a guest's memory does (kinds, below):
#   zero    nothing; QEMU sends such a page as 9 bytes
#   text    four-letter pieces of a sentence in random order
#   noise   random numbers: does not compress
#   live    small random numbers, each one more with every tick: a page from any other instant than the saved one is damage
#           too. (Not the same number everywhere: on memory that repeats itself every four bytes bzip2 takes three times as long.)
#
# One tick is one look at every word. After a restore the first tick completes the round that the save interrupted, the
# second one has seen all of the memory.
#
# Registers throughout: edi address, ebp end of RAM, esi number of this round (0: fill), ebx random state.

	.set	LOAD, 0x100000		# 1 MiB: one page of code, which is never written to
	.set	STACK, LOAD + 0x2000	# the page behind the code's is the stack's alone: TCG takes a write to the page that it
					# executes for self-modifying code, and then runs a hundred times slower
	.set	FIRST, STACK		# from here to the end of RAM: the pattern
	.set	COM1, 0x3f8

	.code32
	.text
	.globl	_start

# The multiboot header, with the addresses that let the file be the flat memory image itself (flag 16) instead of an ELF.
header:	.set	FLAGS, 1 << 16
	.long	0x1BADB002, FLAGS, -(0x1BADB002 + FLAGS)
	.long	LOAD			# where this header is
	.long	LOAD			# where the file goes
	.long	LOAD + end - header	# the end of what is loaded
	.long	STACK			# the end of what the loader clears
	.long	_start

_start:	movl	$STACK, %esp
	movl	8(%ebx), %ebp		# multiboot information: KiB of RAM above 1 MiB, at most up to the hole below 4 GiB
	shll	$10, %ebp
	addl	$0x100000, %ebp
	andl	$-4096, %ebp
	cld
	xorl	%esi, %esi
	call	round			# finds every word wrong, and puts it right
	movl	$up, %edx
	call	print

tick:	incl	%esi
	call	round
	movl	$ticked, %edx
	call	print
	movl	%esi, %eax
	call	print_decimal
	movl	$good, %edx
	call	print
	call	pause
	jmp	tick

# Look at every word of every page.
round:	movl	$FIRST, %edi
page:	cmpl	%ebp, %edi
	jae	1f
	movl	%edi, %ebx
	shrl	$12, %ebx
	movl	%ebx, %eax
	andl	$7, %eax
	imull	$0x9E3779B1, %ebx, %ebx	# each page has random numbers of its own
	jmp	*kinds(, %eax, 4)
1:	ret

kinds:	.long	zero, text, noise, text, zero, text, live, text

	.macro	random			# of a linear congruential generator; its upper bits are the better ones
	imull	$1664525, %ebx, %ebx
	addl	$1013904223, %ebx
	.endm

	.macro	expect			# eax, at edi
	cmpl	%eax, (%edi)
	je	2f
	call	wrong
2:
	.endm

	.macro	next_word loop		# and after the last of this page the next page
	addl	$4, %edi
	testl	$4095, %edi
	jnz	\loop
	jmp	page
	.endm

zero:	xorl	%eax, %eax
	expect
	next_word zero

text:	random
	movl	%ebx, %eax
	shrl	$27, %eax
	movl	words(, %eax, 4), %eax
	expect
	next_word text

noise:	random
	movl	%ebx, %eax
	shrl	$15, %eax
	xorl	%ebx, %eax
	expect
	next_word noise

live:	random
	movl	%ebx, %eax
	shrl	$27, %eax
	leal	-1(%esi, %eax), %eax	# what the round before left
	expect
	incl	(%edi)
	next_word live

# The word at edi is not eax: right in the round that fills, fatal in every other.
wrong:	testl	%esi, %esi
	jnz	1f
	movl	%eax, (%edi)
	ret
1:	movl	$damaged, %edx
	call	print
	movl	%edi, %eax
	call	print_hex
	movl	$newline, %edx
	call	print
2:	hlt				# interrupts are off: for ever
	jmp	2b

# Wait for two wraps of the timer that the firmware left running (18.2 a second), so 55 to 110 ms: under KVM a round takes less
# than that, and a guest that printed without a pause would fill its console.
pause:	movl	$2, %edi
	movl	$0x10000, %ebx		# the count before, more than any
1:	xorl	%eax, %eax
	outb	%al, $0x43		# latch the count of timer 0
	inb	$0x40, %al
	movb	%al, %cl
	inb	$0x40, %al
	movb	%al, %ch
	movzwl	%cx, %ecx		# it counts down
	cmpl	%ebx, %ecx
	movl	%ecx, %ebx
	jbe	1b
	decl	%edi
	jnz	1b
	ret

# Printing: edx is a string, eax a number; eax, ecx, edx and ebx are lost.
print:	movb	(%edx), %cl
	testb	%cl, %cl
	jz	1f
	call	print_byte
	incl	%edx
	jmp	print
1:	ret

print_decimal:
	movl	$10, %ebx
	jmp	1f
print_hex:
	movl	$16, %ebx
1:	xorl	%edx, %edx		# the digits come last first: those before them wait on the stack
	divl	%ebx
	pushl	%edx
	testl	%eax, %eax
	jz	2f
	call	1b
2:	popl	%edx
	movb	digits(%edx), %cl
	# falls through

print_byte:				# cl
	pushl	%edx
	movl	$COM1 + 5, %edx
1:	inb	%dx, %al		# until the line takes another byte
	testb	$0x20, %al
	jz	1b
	movl	$COM1, %edx
	movb	%cl, %al
	outb	%al, %dx
	popl	%edx
	ret

digits:	.ascii	"0123456789abcdef"
up:	.asciz	"up\n"
ticked:	.asciz	"tick "
good:	.asciz	" memory ok\n"
damaged: .asciz	"DAMAGED at 0x"
newline: .asciz	"\n"
	.balign	4, 0
words:	.ascii	"A guest sleeps, its memory lies compressed in a file; one day it wakes, counts on, and nobody told it how long the pause was. . "
	.if	. - words - 128
	.error	"words must be 32 pieces of four letters"
	.endif
	.balign	4, 0
end:
