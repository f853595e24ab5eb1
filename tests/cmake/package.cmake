# Installs the project, moves the result (so that no path of the build tree can help), and builds
# tests/package against it as a stranger would: through find_package, without the optional
# dependencies, and through add_subdirectory. NVCC: a compiler of CUDA 13, or empty.

cmake_minimum_required(VERSION 3.25)

# message(FATAL_ERROR) reflows its text; compiler output must stay as it is.
function(stop text)
  message(NOTICE "${text}")
  message(FATAL_ERROR "failed, see above")
endfunction()

function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output
                  ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    stop("${what} failed:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK_DIR})
run("installing" ${CMAKE_COMMAND} --install ${BINARY_DIR} --prefix ${WORK_DIR}/first)
file(RENAME ${WORK_DIR}/first ${WORK_DIR}/moved)

file(GLOB_RECURSE shipped RELATIVE ${SOURCE_DIR}/include ${SOURCE_DIR}/include/*.hpp
     ${SOURCE_DIR}/include/*.cuh)
file(GLOB_RECURSE installed RELATIVE ${WORK_DIR}/moved/include ${WORK_DIR}/moved/include/*)
list(SORT shipped)
list(SORT installed)
if(NOT shipped STREQUAL installed)
  stop("installed headers differ:\n${shipped}\n${installed}")
endif()

# consume NAME OPTION...: configures, builds and runs the outside project.
function(consume name)
  set(directory ${WORK_DIR}/${name})
  run("configuring ${name}" ${CMAKE_COMMAND} -S ${SOURCE_DIR}/tests/package -B ${directory}
      -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${COMPILER} -DEXPECTED_VERSION=${VERSION} ${ARGN})
  run("building ${name}" ${CMAKE_COMMAND} --build ${directory})
  run("running ${name}" ${directory}/consumer)
endfunction()

consume(find_package -DCMAKE_PREFIX_PATH=${WORK_DIR}/moved -DCONSUMER_NVCC=${NVCC})
if(NVCC)
  run("running the CUDA consumer" ${WORK_DIR}/find_package/cuda_consumer)
endif()
consume(find_package_bare -DCMAKE_PREFIX_PATH=${WORK_DIR}/moved
        -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON -DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON)
consume(add_subdirectory -DDUALSFT_SUBDIRECTORY=${SOURCE_DIR})
consume(add_subdirectory_bare -DDUALSFT_SUBDIRECTORY=${SOURCE_DIR}
        -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON -DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON)
