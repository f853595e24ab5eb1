# Runs PROGRAM and compares what it prints with the first comment of SOURCE:
#
#   // Arguments in tests: --quick          (optional)
#   // Output:
#   //   every line printed, as far as the comment goes
#
# or, where the text differs from machine to machine, `// Output varies`: then only the exit status
# counts. Indentation and trailing space are ignored.

cmake_minimum_required(VERSION 3.25)

# message(FATAL_ERROR) reflows its text; compiler output must stay as it is.
function(stop text)
  message(NOTICE "${text}")
  message(FATAL_ERROR "failed, see above")
endfunction()

file(READ ${SOURCE} text)
set(arguments "")
if("${text}" MATCHES "// Arguments in tests: ([^\n]*)\n")
  separate_arguments(arguments UNIX_COMMAND "${CMAKE_MATCH_1}")
endif()

execute_process(COMMAND ${PROGRAM} ${arguments} RESULT_VARIABLE result OUTPUT_VARIABLE found
                ERROR_VARIABLE complaints)
if(NOT result EQUAL 0)
  stop("${PROGRAM} ended with ${result}:\n${found}${complaints}")
endif()
if("${text}" MATCHES "// Output varies")
  return()
endif()

string(FIND "${text}" "// Output:\n" begin)
if(begin EQUAL -1)
  stop("${SOURCE}: the first comment needs `// Output:` or `// Output varies`")
endif()
math(EXPR begin "${begin} + 11")
string(SUBSTRING "${text}" ${begin} -1 rest)
set(expected "")
while("${rest}" MATCHES "^[ \t]*//([^\n]*)\n")
  string(APPEND expected "${CMAKE_MATCH_1}\n")
  string(LENGTH "${CMAKE_MATCH_0}" length)
  string(SUBSTRING "${rest}" ${length} -1 rest)
endwhile()

foreach(name IN ITEMS expected found)
  string(REGEX REPLACE "[ \t\r]*\n[ \t]*" "\n" ${name} "\n${${name}}\n")
  string(REGEX REPLACE "^\n+" "" ${name} "${${name}}")
  string(REGEX REPLACE "\n+$" "" ${name} "${${name}}")
endforeach()
if(NOT "${expected}" STREQUAL "${found}")
  stop("${SOURCE}: the output differs from the first comment\n-- expected\n${expected}\n-- found\n${found}")
endif()
